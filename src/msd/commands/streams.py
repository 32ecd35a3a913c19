"""Standard output and error as they are found: closed, full, ASCII only; and how text is made fit for them."""

from __future__ import annotations

import codecs
import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from msd.errors import MachineError

_PLAIN = {"\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u00b7": ".", "\u2212": "-"}
"""What stands for signs of ours where a terminal has only ASCII."""


def one_line(text: object) -> str:
    """Text of users and libraries, made one line of a message: no line breaks, and nothing that steers a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


def make_usable() -> None:
    """Make all three standard streams safe to write to: closed ones lead nowhere, and no sign is an error."""
    # A closed 0, 1 or 2 would be given to the next file that is opened, which then got what is printed.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    codecs.register_error("msd-plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="msd-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


@contextmanager
def diverted() -> Iterator[TextIO]:
    """While the block runs, what is written to standard output, by Python, C or a child, goes to standard error.

    Yields the real one, which can be written to once the block has ended.
    """
    real = sys.stdout
    is_descriptor = _descriptor(real) == 1
    kept = -1
    if is_descriptor:
        real.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield real
    finally:
        sys.stdout = real
        if is_descriptor:
            with suppress(OSError, AttributeError, TypeError):  # what C has printed and not yet written
                ctypes.CDLL(None).fflush(None)
            os.dup2(kept, 1)
            os.close(kept)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream that only tests or a notebook have
        return None


@contextmanager
def writing(stream: TextIO) -> Iterator[None]:
    """While a result is written to standard output. Raises MachineError when that is full; a closed pipe passes."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon(stream)
        raise MachineError(
            f"standard output cannot be written ({error.strerror or error}); what was finished is on disk: give the output "
            "another place, and run the same command again."
        ) from error


def abandon(stream: TextIO) -> None:
    """Let a stream that cannot be written lead nowhere, so that Python does not try once more when it ends."""
    number = _descriptor(stream)
    if number is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
