"""Stopping between two steps, not in the middle of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list instead of acting on them; a second one acts as it did before."""
    received: list[int] = []
    previous = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            # Sent anew rather than called: what a process does by default with SIGTERM is not a Python function.
            signal.signal(number, previous[number])
            os.kill(os.getpid(), number)

    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
