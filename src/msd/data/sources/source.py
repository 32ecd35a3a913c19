"""What every layout is to the rest: a place that gives its classes, its images one after the other, and a cheap key."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from msd.data.decode import Content, Damaged
from msd.errors import DataError
from msd.reading import fitted

Label = str | int
"""A class by name, or by number where a source has numbers."""
_WHOLE = re.compile("-?[0-9]{1,9}")
SPLIT_NAMES = ("train", "test", "val", "valid", "validation")
"""What parts of a source are called, in any case of letters."""


@dataclass(frozen=True)
class Entry:
    """One image of a source, not yet decoded."""

    name: str
    """What a sentence calls it: its path within the source, or its number."""
    label: Label
    content: Content | Damaged
    split: str = ""

    @property
    def num_bytes(self) -> int:
        """Memory that it holds until it is decoded."""
        content = self.content
        return len(content) if isinstance(content, bytes) else content.nbytes if isinstance(content, np.ndarray) else 0


@dataclass(frozen=True)
class Key:
    """What tells whether a source is still the same, without reading an image: names, sizes and times of all its files."""

    digest: str
    num_files: int


class Source(ABC):
    """Images with labels in one layout. Nothing is decoded, and nothing but lists of names is held in memory."""

    layout: ClassVar[str]
    is_listed: ClassVar[bool] = True
    """Whether `entries` gives names and labels without reading the images."""

    def __init__(self, path: Path):
        self.path = path
        self.num_ignored = 0
        """Files that are no images, counted while `entries` runs."""

    @abstractmethod
    def key(self) -> Key:
        """Raises DataError for what is not read: links to folders, names that lead out of an archive."""

    @abstractmethod
    def entries(self, split: str | None) -> Iterator[Entry]:
        """All images of `split`, or of all, in the source's own order. Raises DataError where the source as a whole is
        damaged; an image that is comes as an entry that says so."""

    def splits(self) -> tuple[str, ...]:
        """Names of its parts, if it has any."""
        return ()

    def names(self) -> tuple[str, ...] | None:
        """The classes that the source itself declares: in the order of their numbers, or in any where labels are names."""
        return None

    def count(self, split: str | None) -> int | None:
        """How many images there are, where that is known without looking at them."""
        return None

    def check_split(self, split: str | None) -> None:
        """Raises DataError for a part that there is not."""
        known = self.splits()
        if split is not None and split not in known:
            advice = f"choose one of {', '.join(known)}" if known else "leave data.split out"
            raise DataError(f"{self.path} ({self.layout}) has no part {split!r}; {advice}.")


BROKEN_ARCHIVE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a zip raises, whatever is wrong with it: cut, damaged, encrypted, of another kind of compression."""


def key_of(parts: Iterable[tuple[str, int, int]]) -> Key:
    """A key of (name, bytes, time) of each file, in whatever order they come: none need be held to be sorted."""
    total, num = 0, 0
    for name, num_bytes, stamp in parts:
        record = f"{name}\0{num_bytes}\0{stamp}".encode("utf-8", "surrogateescape")
        total += int.from_bytes(hashlib.sha256(record).digest(), "big")
        num += 1
    return Key(f"{total % 2**256:064x}", num)


def file_key(*paths: Path) -> Key:
    """The key of a source that is a few files."""
    found = [(path.name, path.stat()) for path in paths]
    return key_of((name, status.st_size, stamp(status.st_mtime_ns, status.st_ctime_ns)) for name, status in found)


def stamp(modified_ns: int, changed_ns: int) -> int:
    """One number of a file's two times: the second also tells of a file that was replaced and given the old one's time."""
    return (modified_ns << 64) ^ changed_ns


def shards_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files of a folder whose names end so, sorted; also those in its folders `data`, train, test and val."""
    found: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith(endings):
                found.append(Path(entry.path))
            elif entry.name.lower() in ("data", *SPLIT_NAMES) and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry) as inner:
                    found += [Path(one.path) for one in inner if one.name.lower().endswith(endings)]
    return sorted(found)


def split_of(path: Path, root: Path) -> str:
    """The part that a shard belongs to, by the first word of its name or by its folder; empty where neither says."""
    first = path.name.replace("_", "-").replace(".", "-").partition("-")[0].lower()
    if first in SPLIT_NAMES:
        return first
    folder = path.parent.name.lower()
    return folder if path.parent != root and folder in SPLIT_NAMES else ""


def normal(name: str) -> str:
    """A class name as it is compared: composed, as file systems differ in how they write an accent."""
    return unicodedata.normalize("NFC", name)


def label_of(text: str) -> Label:
    """What a text says: a number if it is a whole one, else a name."""
    return int(text) if _WHOLE.fullmatch(text) else normal(text)


def shown(name: str) -> str:
    """A file's name as a piece of a sentence."""
    return fitted(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), 200)


def slug(path: Path) -> str:
    """A source's name as metrics and folders call it: small letters, digits and hyphens."""
    name = re.sub(r"\.(zip|npz|tar|tar\.gz|tgz|parquet)$", "", Path(os.path.abspath(path)).name, flags=re.IGNORECASE)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", plain)[:40].strip("-") or "images"
