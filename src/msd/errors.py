"""Errors a user can act on: each message is one sentence naming the thing, what is wrong, and the next step."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator


class MsdError(Exception):
    """Base of all errors caused by input or environment; the command line prints the message and exits with `exit_code`."""

    exit_code = 2


class RecipeError(MsdError):
    """A recipe that cannot be read, or that asks for something impossible."""


class PartitionError(MsdError):
    """A partition that does not cover the conditions, or a condition outside it."""


class ConditionError(MsdError):
    """A condition (class label) that the model does not know."""


class SolverError(MsdError):
    """A sampling procedure that cannot be carried out as asked."""


class DataError(MsdError):
    """Images or pairs that are missing, damaged or of the wrong shape."""


class WeightsError(MsdError):
    """Saved weights that are missing, damaged or do not fit together."""


class RunError(MsdError):
    """A run folder that is missing, incomplete, not writable, or made by another recipe."""


class UsageError(MsdError):
    """A command line that asks for a verb, option or value that there is not."""


class MachineError(MsdError):
    """Memory, disk, a file or a stream that the machine refuses."""


class LibraryError(MsdError):
    """A library that could not do what it was asked, or cannot be loaded."""


class InternalError(MsdError):
    """An error that nobody has foreseen: a defect of msd, not of what it was given."""


class TrainingError(MsdError):
    """Training that stopped by itself, e.g. because its gradients stopped being finite."""

    exit_code = 1


class StudentFailed(MsdError):
    """At least one student's process failed; the others were left to finish."""

    exit_code = 1


class Interrupted(MsdError):
    """The user stopped the command; everything up to the last finished step is on disk."""

    exit_code = 1


Hearer = Callable[[str], None]
_HEARERS: list[Hearer] = []


@contextlib.contextmanager
def heard_by(hearer: Hearer) -> Iterator[None]:
    """Let `hearer` have the sentence of every warning too, for a process whose standard error nobody watches."""
    _HEARERS.append(hearer)
    try:
        yield
    finally:
        _HEARERS.remove(hearer)


def warn(sentence: str) -> None:
    """Tell of something that is wrong and keeps nobody from going on: a line on standard error, if there is one."""
    sentence = " ".join(sentence.split())
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"Warning: {sentence}\n")
    for hearer in _HEARERS:
        hearer(sentence)
