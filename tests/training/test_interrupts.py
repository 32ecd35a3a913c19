"""The first signal asks for a stop; a second one acts as it would have without us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from msd.training.interrupts import stop_requests


def test_the_first_signal_is_noted_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_ends_the_process() -> None:
    code = (
        "import os, signal, time\n"
        "from msd.training.interrupts import stop_requests\n"
        "with stop_requests() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(20)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=15).returncode == -signal.SIGTERM
