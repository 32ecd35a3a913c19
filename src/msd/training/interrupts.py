"""Stopping between two steps, not in the middle of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in the yielded list instead of acting on them; a second acts as it did before."""
    received: list[int] = []
    previous = {int(number): signal.getsignal(number) for number in STOPPING}

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
