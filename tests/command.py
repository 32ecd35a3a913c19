"""Running the command line in tests: in this process where that will do, in its own where signals are at stake."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from msd.cli import main

MSD = [sys.executable, "-c", "from msd.cli import main; main()"]


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def msd(*arguments: object, code: int = 0) -> Done:
    """Run the command line in this process, which saves importing torch anew each time."""
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    returned = 0
    try:
        with (
            mock.patch.object(sys, "argv", ["msd", *map(str, arguments)]),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            main()
    except SystemExit as ended:
        returned = ended.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert (returned or 0) == code, stdout.getvalue() + stderr.getvalue()
    return Done(stdout.getvalue(), stderr.getvalue())


def fails(*arguments: object, code: int = 2) -> str:
    """Run, expect failure, check that the message is one sentence without a traceback, and return it."""
    done = msd(*arguments, code=code)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if re.match(r"[A-Z]\w+(Error|Failed): ", line)]
    assert len(lines) == 1, done.stderr
    return lines[0]


def interrupt(arguments: list[str], ready: Callable[[], bool]) -> str:
    """Start a command, press Ctrl-C once `ready`, check its exit code, and return what it said."""
    process = subprocess.Popen([*MSD, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not ready():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "the same command again goes on" in errors
    return errors
