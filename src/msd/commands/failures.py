"""Whatever ends a command, as one sentence: errors of libraries and of the machine are translated, never passed on."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from msd.commands.streams import one_line
from msd.errors import InternalError, LibraryError, MachineError, MsdError

LIBRARIES = (
    "torch", "diffusers", "safetensors", "torchmetrics", "numpy", "scipy", "sklearn", "matplotlib", "PIL", "jinja2", "yaml",
    "pydantic", "pydantic_core", "rich", "huggingface_hub", "transformers",
)  # fmt: skip
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
LONGEST = 300
"""Letters of a foreign message that are passed on: what it is about stands at its beginning."""


def translated(error: BaseException) -> MsdError:
    """The error that a user is told in the place of `error`."""
    if isinstance(error, MsdError):
        return error
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return MachineError(
            "the memory ran out; ask for less at a time (evaluation.batch_size, dm.batch_size, fleet.max_parallel, --num), "
            "or take a larger machine."
        )
    if isinstance(error, UnicodeError):
        return MachineError(f"a name or a text is not valid Unicode ({_said(error)}); rename it, or save it as UTF-8.")
    if isinstance(error, ImportError):
        return LibraryError(f"a package is missing or broken ({_said(error)}); install msd again in a fresh environment.")
    if isinstance(error, OSError):
        return MachineError(_of_system(error))
    library = _library(error)
    if library:
        return LibraryError(
            f"{library} could not do its part ({type(error).__name__}: {_said(error)}); check the files and values it was "
            "given, and run again with --debug for the traceback."
        )
    return InternalError(
        f"a defect of msd ({type(error).__name__}: {_said(error)}); run again with --debug, and report the traceback."
    )


def _of_system(error: OSError) -> str:
    what = ", ".join(one_line(name) for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or _said(error)
    advice = {
        errno.ENOSPC: "free some space, and run the same command again",
        errno.EDQUOT: "free some of your quota, and run the same command again",
        errno.EMFILE: "allow more open files (ulimit -n), and run the same command again",
        errno.EFBIG: "allow larger files (ulimit -f), and run the same command again",
        errno.EAGAIN: "end other processes, or allow more (ulimit -u), and run the same command again",
    }.get(error.errno or 0, "check it, and run the same command again")
    return f"{what or 'the system'} refuses ({reason}); {advice}."


def _library(error: BaseException) -> str | None:
    """The library that an error is of: its class is defined there, or it was raised there."""
    raised = _innermost(error.__traceback__)
    for module in (type(error).__module__, raised):
        root = module.partition(".")[0]
        if root in LIBRARIES:
            return root
    return None


def _innermost(traceback: TracebackType | None) -> str:
    name = ""
    while traceback is not None:
        name, traceback = str(traceback.tb_frame.f_globals.get("__name__", "")), traceback.tb_next
    return name


def _said(error: BaseException) -> str:
    text = one_line(error) or os.strerror(getattr(error, "errno", None) or 0)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
