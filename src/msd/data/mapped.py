"""Files too large for memory: checked once, mapped, and looked at again before each reading.

A page of a mapped file that was cut off meanwhile ends the whole process (SIGBUS), so a file's size is asked before its
pages are read. A file whose content matters to the bit is known by its `Stamp`, taken while it was checked, and one that
bears another is read no more. Between asking and reading lie microseconds, in which nothing helps.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msd.errors import DataError
from msd.reading import Broken, Kind, open_regular, reason

BLOCK = 1 << 20
"""Bytes that are in memory at a time while a file is checked."""


class Digest(Protocol):
    def update(self, content: bytes, /) -> None: ...


@dataclass(frozen=True)
class Stamp:
    """What tells a file from another one under its name, and from itself after somebody wrote to it."""

    device: int
    inode: int
    num_bytes: int
    modified: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class KnownFile:
    """The file at `path` in the very state that bears `stamp`; `kind` words the sentences about it."""

    path: Path
    stamp: Stamp
    kind: Kind

    @classmethod
    def read(cls, path: Path, kind: Kind, *digests: Digest) -> KnownFile:
        """Read the file through once, a block at a time, into `digests`. Raises DataError."""
        try:
            with open_regular(path) as stream:
                before = Stamp.of(os.fstat(stream.fileno()))
                while block := stream.read(BLOCK):
                    for digest in digests:
                        digest.update(block)
                found = cls(path, before, kind)
                found._compare(os.fstat(stream.fileno()))
        except (OSError, ValueError) as error:
            raise kind.unreadable(path, reason(error)) from error
        return found

    @classmethod
    def verified(cls, path: Path, checksum: str, kind: Kind) -> KnownFile:
        """The file, if it has this sha256: it is read once, and by its stamp known from there on. Raises DataError."""
        digest = hashlib.sha256()
        try:
            found = cls.read(path, kind, digest)
        except DataError as error:
            raise damaged(path, kind) from error
        if digest.hexdigest() != checksum:
            raise damaged(path, kind)
        return found

    def check(self) -> None:
        """Raises DataError when the file is gone, or is no longer what it was."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise DataError(f"{self.path} vanished while it was in use ({reason(error)}); {self.kind.remedy}.") from error
        self._compare(found)

    def _compare(self, found: os.stat_result) -> None:
        if Stamp.of(found) != self.stamp:
            raise _changed(self.path, self.kind, found.st_size, self.stamp.num_bytes)

    def map(self) -> Mapped:
        """Its bytes. Raises DataError."""
        return Mapped.of(self.path, self.stamp.num_bytes, self.kind, self._compare)


@dataclass(frozen=True)
class Mapped:
    """The bytes `content` of the file that was at `path`, of which the system holds in memory what is in use and it has room
    for. They stay what they were where the file is removed or replaced, but not where it is cut: ask before reading."""

    path: Path
    content: mmap.mmap
    kind: Kind

    @classmethod
    def of(
        cls, path: Path, num_bytes: int, kind: Kind, on_open: Callable[[os.stat_result], None] = lambda found: None
    ) -> Mapped:
        """Map a file of `num_bytes`, once `on_open` has seen what was opened. Raises DataError."""
        try:
            with open_regular(path) as stream:
                found = os.fstat(stream.fileno())
                on_open(found)
                if found.st_size != num_bytes:
                    raise Broken(f"it has {found.st_size:,} bytes instead of {num_bytes:,}")
                return cls(path, mmap.mmap(stream.fileno(), num_bytes, access=mmap.ACCESS_READ), kind)
        except (OSError, ValueError) as error:
            raise kind.unreadable(path, reason(error)) from error

    def check(self) -> None:
        """Raises DataError when the file has been cut."""
        left, num_bytes = self.content.size(), len(self.content)
        if left < num_bytes:
            raise _changed(self.path, self.kind, left, num_bytes)

    def array(self, kind: str, shape: Sequence[int], offset: int = 0) -> NDArray[Any]:
        """A view of numbers of numpy's `kind`; it keeps the mapping, and nobody may write to it."""
        return np.frombuffer(self.content, kind, math.prod(shape), offset).reshape(shape)


def _changed(path: Path, kind: Kind, left: int, num_bytes: int) -> DataError:
    size = f" ({left:,} of {num_bytes:,} bytes are left)" if left < num_bytes else ""
    return DataError(f"{path} was changed while it was in use{size}; {kind.remedy}.")


def damaged(path: Path, kind: Kind) -> DataError:
    return DataError(f"{path} is missing or damaged (its checksum is not the recorded one); {kind.remedy}.")
