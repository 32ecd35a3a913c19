"""Workers as the command sees them: it asks the launcher for one, looks whether it has ended, and tells it to stop."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msd.errors import RunError

ANSWER_SECONDS = 120.0
"""How long a launcher may take to start a worker: it imports torch first, on a busy machine or a slow disk."""


@dataclass
class Worker:
    """A process at work on a job. `code` is how it ended: its exit code, or minus the signal that killed it."""

    pid: int
    code: int | None = None
    words: str = ""
    """What it said last of why it failed."""
    _launcher: Launcher | None = field(default=None, repr=False)

    def poll(self) -> int | None:
        """How it ended, or None while it works."""
        if self.code is None and self._launcher is not None:
            self._launcher.listen()
        return self.code

    def wait(self, seconds: float) -> int | None:
        """Like `poll`, once it has ended or `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.code

    def terminate(self) -> None:
        """Ask it to save and stop."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now; the launcher will tell
                os.kill(self.pid, number)


class Launcher:
    """The launcher of this process, started with the first worker and kept for the next."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: dict[int, Worker] = {}
        self._started: dict[str, int] = {}
        self._unwanted: set[str] = set()
        self._received = b""

    def start(self, folder: Path, environment: dict[str, str], *, fork: bool) -> Worker:
        """A worker for the job in `folder`. Raises RunError when none can be started."""
        token = secrets.token_hex(8)
        request = {
            "token": token,
            "folder": str(folder.absolute()),
            "cwd": os.getcwd(),
            "environment": environment,
            "fork": fork,
        }
        self._send(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + ANSWER_SECONDS
        try:
            while token not in self._started:
                self.listen(seconds=0.1)
                if self._process is None or time.monotonic() > deadline:
                    raise RunError(f"no worker could be started for {folder}; run the command again.")
        except BaseException:
            self._unwanted.add(token)
            raise
        return self._workers[self._started.pop(token)]

    def _send(self, line: bytes) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            self._process = process = _popen()
            self._received = b""
        if process.stdin is None:
            raise RuntimeError("the launcher has no input")
        process.stdin.write(line)
        process.stdin.flush()

    def listen(self, seconds: float = 0.0) -> None:
        """Take in what the launcher has said; waits up to `seconds` for something."""
        process = self._process
        if process is None or process.stdout is None:
            return
        while select.select([process.stdout], [], [], seconds)[0]:
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                self._gone()
                return
            *lines, self._received = (self._received + piece).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
            seconds = 0.0

    def _hear(self, said: dict[str, Any]) -> None:
        number = said["pid"]
        if "code" in said:
            worker = self._workers.pop(number)
            worker.code, worker.words = said["code"], said["words"]
        else:
            worker = self._workers[number] = Worker(number, _launcher=self)
            self._started[said["token"]] = number
            if said["token"] in self._unwanted:
                worker.kill()  # who asked for it was interrupted, and it has done nothing yet

    def _gone(self) -> None:
        """Its workers went with it."""
        for worker in self._workers.values():
            worker.code = -signal.SIGKILL
        self._workers.clear()
        self._process = None

    def close(self) -> None:
        """End it, and with it whatever still works."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
            self._gone()


def _popen() -> subprocess.Popen[bytes]:
    # Its own session: Ctrl-C and a closed terminal reach only the command, which then asks each worker to save and stop.
    # One OpenMP thread: a pool that exists before a fork hangs after it, and each worker sets its own number.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    # torch must not ask the CUDA driver how many cards there are: that too would break what is forked.
    environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    process = subprocess.Popen(
        [sys.executable, "-m", "msd.fleet.launcher", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    return process


LAUNCHER = Launcher()
atexit.register(LAUNCHER.close)
