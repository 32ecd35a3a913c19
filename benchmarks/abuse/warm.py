"""Python programs without the seconds that importing torch costs: forked from this process, which has imported it all.

What the product starts as `python -m MODULE ...` is a process of its own all the same, with its own number, session, files
and signals; only the imports are inherited.
"""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

FLUSH_FAILED = 120
"""Python's exit code when standard output could not be flushed at the end."""


def import_everything() -> None:
    """All that any verb or worker imports, so that no case pays for it."""
    import diffusers.models.unets.unet_2d
    import matplotlib.pyplot
    import sklearn.cluster
    import sklearn.datasets
    import torch
    import torchmetrics.image

    import msd.cli
    import msd.commands.demo
    import msd.commands.plan
    import msd.commands.pretrain
    import msd.commands.sample
    import msd.commands.show
    import msd.commands.shrink
    import msd.fleet.pairing
    import msd.fleet.training
    import msd.fleet.worker

    assert all((diffusers, matplotlib, sklearn, torchmetrics, msd))
    torch.set_num_threads(1)


def finish(action: Callable[[], object]) -> NoReturn:
    """Run `action` as the interpreter runs a program: its exit code, its last words, and the flush at its end.

    Whatever happens, also to those last words, this process goes no further.
    """
    code = 1
    try:
        code = _end_of(action)
        code = _flushed(code)
    finally:
        os._exit(code)


def _end_of(action: Callable[[], object]) -> int:
    try:
        action()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _flushed(code: int) -> int:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(Exception):
            sys.stderr.write(f"Exception ignored in: <stdout>\n{type(error).__name__}: {error}\n")
        code = FLUSH_FAILED
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    return code


def open_streams(encoding: str, *, has_stdout: bool = True) -> None:
    """`sys.stdout` and `sys.stderr` over descriptors 1 and 2, as the interpreter makes them."""
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115 (lives as long as the process)
    sys.stdout = _text(1, encoding, "strict") if has_stdout else None  # pyright: ignore[reportAttributeAccessIssue]
    sys.stderr = _text(2, encoding, "backslashreplace")


def _text(descriptor: int, encoding: str, errors: str) -> io.TextIOWrapper:
    raw = open(descriptor, "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding=encoding, errors=errors, line_buffering=descriptor == 2)


def default_signals() -> None:
    """As after exec: what was handled is at its default again, what was ignored stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


class WarmPopen(subprocess.Popen[Any]):
    """`subprocess.Popen` that forks where it is asked for `python -m MODULE`; anything else it starts as ever."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *rest: Any
    ) -> None:
        words = [os.fsdecode(word) for word in args] if isinstance(args, list | tuple) else []
        if len(words) < 3 or words[0] != sys.executable or words[1] != "-m":
            super()._execute_child(  # pyright: ignore[reportAttributeAccessIssue]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest
            )
            return
        _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *more = rest
        self.pid = os.fork()
        if self.pid == 0:
            _become(words, (p2cread, c2pwrite, errwrite), pass_fds, cwd, env, preexec_fn, start_new_session=more[-2])
        self._child_created = True
        self._close_pipe_fds(  # pyright: ignore[reportAttributeAccessIssue]
            p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        )


def _become(
    words: list[str], files: tuple[int, int, int], passed: Any, cwd: Any, env: Any, preexec: Any, *, start_new_session: bool
) -> NoReturn:
    """In the forked child: be `python -m MODULE ...`."""
    try:
        # In two rounds, since a file may sit on the number of another.
        copies = [os.dup(file) if file >= 0 else -1 for file in files]
        for number, copy in enumerate(copies):
            if copy >= 0:
                os.dup2(copy, number)
        last = 3
        for number in [*sorted(passed), 1024]:
            os.closerange(last, number)
            last = number + 1
        if start_new_session:
            os.setsid()
        if cwd is not None:
            os.chdir(cwd)
        if preexec is not None:
            preexec()
        if env is not None:
            os.environ.clear()
            os.environ.update({os.fsdecode(key): os.fsdecode(value) for key, value in env.items()})
        default_signals()
        open_streams("utf-8")
        sys.argv = [words[2], *words[3:]]
        sys.modules.pop(words[2], None)
        finish(lambda: runpy.run_module(words[2], run_name="__main__", alter_sys=True))
    finally:
        os._exit(255)
