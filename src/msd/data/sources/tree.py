"""Folders and zips as one thing: named files that are listed without being opened, and read one at a time."""

from __future__ import annotations

import os
import stat
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from msd.data.decode import MAX_FILE_BYTES, Content, Damaged
from msd.data.sources.source import BROKEN_ARCHIVE, Key, key_of, shown, stamp
from msd.errors import DataError
from msd.reading import open_regular, reason

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")


@dataclass(frozen=True)
class File:
    """A file of a tree: its path with `/` below the root, its size in bytes, its time as the system counts."""

    name: str
    size: int
    stamp: int


class Tree(ABC):
    """Files below a root. Hidden ones, and what macOS and Windows add of their own, are none of them."""

    def __init__(self, path: Path):
        self.path = path

    @abstractmethod
    def files(self) -> Iterator[File]:
        """Every file at any depth, in no particular order. Raises DataError for what leads out of the tree."""

    @abstractmethod
    def folders(self, within: str = "") -> list[str]:
        """Names of the folders that lie directly in `within` (a path ending in `/`, or empty), sorted."""

    @abstractmethod
    def tops(self) -> list[str]:
        """Names of the files that lie directly in the root, sorted."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Raises OSError or ValueError where it cannot be."""

    @abstractmethod
    def content(self, name: str) -> Content | Damaged:
        """An image's bytes, or the path where whoever decodes it finds them."""

    @abstractmethod
    def has(self, name: str) -> bool: ...

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes. Raises OSError or ValueError."""
        with self.open(name) as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise Damaged(f"it is larger than {limit:,} bytes")
        return content

    def key(self) -> Key:
        """What tells whether anything changed, looked up anew at every call."""
        return key_of((file.name, file.size, file.stamp) for file in self.files())


def is_ours(name: str) -> bool:
    """Whether a file or folder is more than a trace that systems and programs leave."""
    return not name.startswith(".") and name not in ("__MACOSX", "Thumbs.db", "desktop.ini", "__pycache__", "@eaDir")


class Folder(Tree):
    """A folder on disk. Links to files are followed, links to folders refused: they can lead in circles."""

    def files(self) -> Iterator[File]:
        return self._files(self.path, "")

    def _files(self, folder: Path | str, prefix: str) -> Iterator[File]:
        inner = []
        with _scan(folder) as found:
            for entry in found:
                if not is_ours(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
                    continue
                self._refuse_link(entry)
                try:
                    status = entry.stat()
                    kind = stat.S_IFMT(status.st_mode) ^ stat.S_IFREG
                    file = File(prefix + entry.name, status.st_size, stamp(status.st_mtime_ns, status.st_ctime_ns) ^ kind)
                except OSError:  # a link to nothing, or gone by now: whoever reads it says so
                    file = File(prefix + entry.name, 0, 0)
                yield file
        for name in inner:
            yield from self._files(os.path.join(folder, name), f"{prefix}{name}/")

    def _refuse_link(self, entry: os.DirEntry[str]) -> None:
        try:
            leads_to_folder = entry.is_symlink() and entry.is_dir()
        except OSError:  # a circle of links
            leads_to_folder = True
        if leads_to_folder:
            raise DataError(
                f"{shown(entry.path)} is a link to a folder, which is not followed; put the folder itself there, or remove "
                "the link."
            )

    def folders(self, within: str = "") -> list[str]:
        with _scan(self.path / within) as found:
            entries = [entry for entry in found if is_ours(entry.name)]
        for entry in entries:
            self._refuse_link(entry)
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))

    def tops(self) -> list[str]:
        with _scan(self.path) as found:
            return sorted(entry.name for entry in found if is_ours(entry.name) and not entry.is_dir(follow_symlinks=False))

    def _path(self, name: str) -> Path:
        """Raises Damaged where a folder on the way is a link that leads out."""
        path = self.path / name
        parent = path.parent
        if parent not in self._inside:
            root = self.path.resolve()
            if not parent.resolve().is_relative_to(root):
                raise Damaged("it lies behind a link that leads out of the folder")
            self._inside.add(parent)
        return path

    @cached_property
    def _inside(self) -> set[Path]:
        return set()

    def open(self, name: str) -> BinaryIO:
        return open_regular(self._path(name))

    def content(self, name: str) -> Content | Damaged:
        try:
            return self._path(name)
        except (OSError, ValueError, RuntimeError) as error:
            return Damaged(reason(error))

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)


def _scan(folder: Path | str):
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DataError(
            f"{shown(str(folder))} cannot be read ({reason(error)}); make it readable, or move it away."
        ) from error


class Zip(Tree):
    """A zip, read in place and never unpacked. One folder that holds all else is taken for the root."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._members = self._checked()
        self._prefix = ""
        while (wrapping := self._wrapping()) is not None:
            self._prefix += wrapping

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(open_regular(self.path))
        except BROKEN_ARCHIVE as error:
            raise DataError(
                f"{self.path} cannot be read as a zip ({reason(error)}); restore it, or pack it again."
            ) from error

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in self._archive.infolist():
            name = member.filename
            pieces = name.rstrip("/").split("/")
            if any(piece in ("", ".", "..") for piece in pieces) or "\\" in name or ":" in pieces[0]:
                raise DataError(
                    f"{self.path} holds a file named {shown(name)!r}, which leads out of it; pack it again with plain names."
                )
            if member.is_dir() or not all(map(is_ours, pieces)):
                continue
            if name in members:
                raise DataError(f"{self.path} holds {shown(name)!r} twice; pack it again with each file once.")
            if name.lower().endswith(ARCHIVES) and not _is_idx(pieces[-1]):
                raise DataError(f"{self.path} holds another archive, {shown(name)!r}, which is not opened; unpack it first.")
            if member.flag_bits & 1:
                raise DataError(f"{self.path} is encrypted ({shown(name)!r}); pack it again without a password.")
            members[name] = member
        return members

    def _wrapping(self) -> str | None:
        """The one folder, as `name/`, in which all files lie, if it holds folders or a list; None if there is none."""
        tops = {name[len(self._prefix) :].partition("/") for name in self._members}
        firsts = {first for first, _, _ in tops}
        if len(firsts) != 1 or any(not slash for _, slash, _ in tops):
            return None
        rests = {rest for _, _, rest in tops}
        holds_more = any("/" in rest or rest in ("dataset.json", "labels.csv") or _is_idx(rest) for rest in rests)
        return f"{firsts.pop()}/" if holds_more else None

    def files(self) -> Iterator[File]:
        for name, member in self._members.items():
            yield File(name[len(self._prefix) :], member.file_size, member.CRC)

    def folders(self, within: str = "") -> list[str]:
        start = self._prefix + within
        rests = (name[len(start) :] for name in self._members if name.startswith(start))
        return sorted({rest.partition("/")[0] for rest in rests if "/" in rest})

    def tops(self) -> list[str]:
        rests = (name[len(self._prefix) :] for name in self._members)
        return sorted(rest for rest in rests if "/" not in rest)

    def open(self, name: str) -> BinaryIO:
        member = self._members[self._prefix + name]
        if stat.S_ISLNK(member.external_attr >> 16):
            raise Damaged("it is a link")
        try:
            return self._archive.open(member)  # pyright: ignore[reportReturnType] (reads as a BinaryIO does)
        except BROKEN_ARCHIVE as error:
            raise Damaged(reason(error)) from error

    def content(self, name: str) -> Content | Damaged:
        return guarded(lambda: self.read(name, MAX_FILE_BYTES))

    def has(self, name: str) -> bool:
        return self._prefix + name in self._members

    def key(self) -> Key:
        status = self.path.stat()
        own = ("", status.st_size, stamp(status.st_mtime_ns, status.st_ctime_ns))
        found = key_of([own])
        return Key(found.digest, len(self._members))


def guarded(read: Callable[[], bytes]) -> bytes | Damaged:
    """What `read` gives, or why it could not."""
    try:
        return read()
    except BROKEN_ARCHIVE as error:
        return error if isinstance(error, Damaged) else Damaged(reason(error))


def _is_idx(name: str) -> bool:
    return "idx" in name
