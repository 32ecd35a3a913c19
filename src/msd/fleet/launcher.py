"""The process that starts workers and ends with the command: `python -m msd.fleet.launcher PARENT`, spoken to by pipes.

A command starts one when it has its first job to do. On Linux it imports torch and diffusers once (several seconds) and
forks a worker for each job on the CPU; elsewhere, and for jobs on a GPU, whose driver does not survive a fork, a worker is a
new interpreter. When the command is gone, whichever way, the launcher's input ends: it kills its workers and ends. When
the launcher is killed, Linux kills the workers. So no worker outlives what asked for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn, TextIO

from msd.files import write_error
from msd.fleet.jobs import LAST_WORDS, LOG

FORKS = sys.platform == "linux"
POLL_SECONDS = 0.05
IMPORTED = (
    "msd.fleet.worker",
    "msd.fleet.training",
    "msd.fleet.pairing",
    "diffusers.models.unets.unet_2d",
    "torch._dynamo",  # an optimiser imports it with its first step
)
"""What every worker needs. None of it may begin CUDA, which a process forked later could not use."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main() -> None:
    # Only the command says when to stop; Ctrl-C and a closed terminal reach it, and not this process.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent(int(sys.argv[1]))  # which may have gone before this line, leaving a request in the pipe
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "w")
    # Nothing that a library prints may look like an answer.
    os.dup2(2, 1)
    serve(requests.fileno(), answers)


def serve(requests: int, answers: TextIO) -> None:
    """Start a worker for each line that comes in, and say which process it is and how each ends, until the input ends."""
    workers, received = dict[int, int](), b""
    try:
        while True:
            readable, _, _ = select.select([requests], [], [], POLL_SECONDS if workers else None)
            if readable:
                piece = os.read(requests, 1 << 16)
                if not piece:
                    return
                *lines, received = (received + piece).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    number, words = start(request)
                    workers[number] = words
                    _answer(answers, {"token": request["token"], "pid": number})
            for number in list(workers):
                ended, status = os.waitpid(number, os.WNOHANG)
                if ended:
                    words = _read_all(workers.pop(number))
                    _answer(answers, {"pid": number, "code": os.waitstatus_to_exitcode(status), "words": words})
    except BrokenPipeError:
        return  # the command is gone
    finally:
        for number in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for number in workers:
            os.waitpid(number, 0)


def start(request: dict[str, Any]) -> tuple[int, int]:
    """A process for the job in `request["folder"]`: its number, and where its last words can be read.

    Forked with all that workers import, where that is safe.
    """
    forked = FORKS and request["fork"]
    if forked:
        for name in IMPORTED:
            importlib.import_module(name)
    reading, writing = os.pipe()
    launcher, number = os.getpid(), os.fork()
    if number == 0:
        try:
            _become_worker(request, launcher, forked, writing)
        except OSError as error:
            os.write(writing, str(write_error(Path(request["folder"]) / LOG, error)).encode())
        finally:
            os._exit(2)
    os.close(writing)
    return number, reading


def _read_all(pipe: int) -> str:
    with os.fdopen(pipe, "rb") as stream:
        return stream.read().decode(errors="replace")


def _become_worker(request: dict[str, Any], launcher: int, forked: bool, words: int) -> NoReturn:
    _end_with_parent(launcher)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    folder = Path(request["folder"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.set_inheritable(words, True)
    os.environ[LAST_WORDS] = str(words)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    if not forked:
        os.execv(sys.executable, [sys.executable, "-m", "msd.fleet.worker", str(folder)])
    from msd.fleet.worker import main as work

    with contextlib.suppress(OSError):
        # What `top` shows. The command line stays the launcher's.
        Path("/proc/self/comm").write_text(f"msd {folder.name}"[:15], encoding="utf-8")
    code = work(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent(parent: int) -> None:
    """Let the system kill this process when `parent`, which started it, dies; end if it has already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
