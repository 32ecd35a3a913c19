"""Commands as processes: forked from the warm parent or started anew, watched, ended, and what they said."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.abuse.system import kill_descendants, obey_permissions
from benchmarks.abuse.warm import WarmPopen, default_signals, finish, open_streams

MEMORY_BYTES = 3 * 2**30
"""Address space of a command: what asks for more fails by itself, and not the machine."""
PROGRAM = "from msd.cli import main; main()"


@dataclass(frozen=True)
class Start:
    """A command line and the world it is started in."""

    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Changes of the environment; None removes a variable."""
    stdout: Literal["file", "closed", "full", "gone"] = "file"
    """`full` is /dev/full, `gone` a pipe that nobody reads."""
    encoding: str = "utf-8"
    file_bytes: int | None = None
    """The largest file it may write (`ulimit -f`)."""
    is_humble: bool = False
    """Obeys file modes, also as root."""
    is_cold: bool = False
    """A new interpreter, and for its workers too: seconds slower, and just as users have it."""
    action: Callable[[], object] | None = None
    """Called in place of the command line."""


@dataclass(frozen=True)
class Done:
    """How a command ended. `code` is minus the signal's number where one ended it."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float
    hung: bool = False


class Running:
    """A started command."""

    def __init__(self, start: Start, log: Path):
        self.start, self._log, self._begin = start, log, time.monotonic()
        log.mkdir(parents=True)
        self.pid = _start_cold(start, log) if start.is_cold else _fork(start, log)
        self._status: int | None = None

    def is_over(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None

    def signal(self, number: int) -> None:
        """To the command's whole foreground group, as a terminal would."""
        if not self.is_over():
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.killpg(self.pid, number)

    def listens(self) -> bool:
        """Whether it minds SIGHUP by now: before its first line Python itself would answer, in its own words."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return False
        caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)

    def kill_alone(self) -> None:
        """SIGKILL to the command, not to what it started."""
        if not self.is_over():
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Until it is over (True), `stop` says so, or `seconds` have passed since it began."""
        while not self.is_over():
            if stop() or time.monotonic() - self._begin > seconds:
                return False
            time.sleep(0.004)
        return True

    def finish(self, seconds: float) -> Done:
        """Its end, or, after `seconds` since it began, its violent end."""
        hung = not self.wait(seconds)
        if hung:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            kill_descendants(os.getpid())
            self._status = signal.SIGKILL
        assert self._status is not None
        said = [(self._log / name).read_bytes().decode(errors="replace") for name in ("stdout", "stderr")]
        code = os.waitstatus_to_exitcode(self._status)
        return Done(self.start.arguments, code, said[0], said[1], time.monotonic() - self._begin, hung)


def _start_cold(start: Start, log: Path) -> int:
    with (log / "stdout").open("wb") as stdout, (log / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *start.arguments],
            cwd=start.folder,
            env={key: value for key, value in (os.environ | dict(start.environment)).items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    process.returncode = 0  # whose end is waited for by number: Popen shall not
    return process.pid


def _fork(start: Start, log: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        _prepare(start, log)
        finish(start.action or _main)
    except BaseException as error:
        (log / "stderr").write_text(f"harness: {error!r}")
    finally:
        os._exit(250)


def _prepare(start: Start, log: Path) -> None:
    """In the forked child: the place, the files and the limits that the case asks for."""
    os.setsid()
    for name in ("stdout", "stderr"):
        (log / name).touch()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(_standard_output(start, log), 1)
    os.dup2(os.open(log / "stderr", os.O_WRONLY | os.O_APPEND), 2)
    os.closerange(3, 1024)
    if start.stdout == "closed":
        os.close(1)
    os.chdir(start.folder)
    for key, value in start.environment.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if start.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start.file_bytes, start.file_bytes))
    if start.is_humble and not obey_permissions():
        raise OSError("root cannot be made to obey file modes here")
    default_signals()
    open_streams(start.encoding, has_stdout=start.stdout != "closed")
    subprocess.Popen = WarmPopen
    sys.argv = ["msd", *start.arguments]


def _standard_output(start: Start, log: Path) -> int:
    if start.stdout == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if start.stdout == "gone":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return os.open(log / "stdout", os.O_WRONLY | os.O_APPEND)


def _main() -> None:
    from msd.cli import main

    main()
