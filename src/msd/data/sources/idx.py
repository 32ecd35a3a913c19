"""IDX files, as MNIST and its kin come: `train-images-idx3-ubyte` beside `train-labels-idx1-ubyte`, gzip or plain."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import BinaryIO

import numpy as np

from msd.data.sources.source import Entry, Key, Source
from msd.data.sources.tree import Tree
from msd.errors import DataError
from msd.reading import reason

_IMAGES = re.compile(r"(?P<part>.*?)(?P<joint>[-_.]?)images(?P<rest>[-_.]idx[34]-ubyte(\.gz)?)", re.IGNORECASE)
_TEST = "t10k"
"""What MNIST calls its test part."""
UNSIGNED_BYTE = 8
MAX_SIDE = 2**14


class Idx(Source):
    """Pairs of files: images `[N, H, W]` or `[N, H, W, C]` and labels `[N]`, all unsigned bytes."""

    layout = "IDX files"

    def __init__(self, tree: Tree, pairs: dict[str, tuple[str, str]]):
        super().__init__(tree.path)
        self._tree, self._pairs = tree, pairs

    @classmethod
    def found(cls, tree: Tree) -> Idx | None:
        names = tree.tops()
        pairs: dict[str, tuple[str, str]] = {}
        for name in names:
            match = _IMAGES.fullmatch(name)
            if not match or (name.endswith(".gz") and name.removesuffix(".gz") in names):
                continue
            tail = re.sub("idx[34]", "idx1", match["rest"]).removesuffix(".gz")
            start = f"{match['part']}{match['joint']}labels{tail}"
            labels = next((one for one in (start, f"{start}.gz") if one in names), None)
            if labels is None:
                raise DataError(f"{tree.path / name} has no labels beside it; add {start}.")
            pairs["test" if match["part"] == _TEST else match["part"]] = (name, labels)
        return cls(tree, pairs) if pairs else None

    def key(self) -> Key:
        return self._tree.key()

    def splits(self) -> tuple[str, ...]:
        return tuple(sorted(filter(None, self._pairs)))

    def count(self, split: str | None) -> int:
        return sum(self._counts[part] for part in self._chosen(split))

    @cached_property
    def _counts(self) -> dict[str, int]:
        counts = {}
        for part, (images, _) in self._pairs.items():
            with self._opened(images) as stream:
                counts[part] = self._header(images, stream)[0]
        return counts

    def _chosen(self, split: str | None) -> list[str]:
        return sorted(self._pairs) if split is None else [split]

    def entries(self, split: str | None) -> Iterator[Entry]:
        for part in self._chosen(split):
            images, labels = self._pairs[part]
            found = self._labels(labels)
            with self._opened(images) as stream:
                num, *shape = self._header(images, stream)
                if num != len(found):
                    raise DataError(
                        f"{self.path / images} holds {num:,} images and {labels} {len(found):,} labels; restore both files."
                    )
                if len(shape) not in (2, 3) or max(shape) > MAX_SIDE or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
                    raise self._wrong(images, f"its images are of shape {tuple(shape)}")
                size = math.prod(shape)
                for index in range(num):
                    pixels = np.frombuffer(self._exactly(images, stream, size), np.uint8).reshape(shape)
                    yield Entry(f"{images}, image {index}", int(found[index]), pixels, part)
                if stream.read(1):
                    raise self._wrong(images, f"it goes on after the {num:,} images that it announces")

    def _labels(self, name: str) -> bytes:
        with self._opened(name) as stream:
            num, *shape = self._header(name, stream)
            found = self._exactly(name, stream, num) if not shape else b""
            if shape or stream.read(1):
                raise self._wrong(name, "it is not one label an image")
        return found

    def _header(self, name: str, stream: BinaryIO) -> tuple[int, ...]:
        """The sizes that the file announces."""
        zero, kind, num_axes = struct.unpack(">HBB", self._exactly(name, stream, 4))
        if zero or kind != UNSIGNED_BYTE or not 1 <= num_axes <= 4:
            raise self._wrong(name, "its first bytes are not those of unsigned bytes in IDX")
        sizes = struct.unpack(f">{num_axes}I", self._exactly(name, stream, 4 * num_axes))
        if not all(sizes):
            raise self._wrong(name, f"it announces the sizes {sizes}")
        return sizes

    def _exactly(self, name: str, stream: BinaryIO, num: int) -> bytes:
        content = stream.read(num)
        if len(content) < num:
            raise self._wrong(name, "it ends before it should")
        return content

    def _wrong(self, name: str, why: str) -> DataError:
        return DataError(f"{self.path / name} is damaged or no IDX file ({why}); restore it.")

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._tree.open(name) as stream:
                if name.endswith(".gz"):
                    with gzip.GzipFile(fileobj=stream) as unpacked:
                        yield unpacked  # pyright: ignore[reportReturnType] (reads as a BinaryIO does)
                else:
                    yield stream
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise self._wrong(name, reason(error)) from error
