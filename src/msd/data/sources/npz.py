"""A `.npz` of numpy with `images` and `labels`, perhaps `classes`: read image by image, never unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from msd.data.sources.source import BROKEN_ARCHIVE, Entry, Key, Label, Source, file_key, normal
from msd.errors import DataError
from msd.reading import Broken, open_regular, reason

COLOURS = (1, 3, 4)
"""Channels that an image can have: grey, colour, colour with alpha."""
_SAVE = "np.savez(path, images=images, labels=labels)"
MAX_LABEL_BYTES = 2**30


class Npz(Source):
    """`images` uint8 `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`, the channels last where both could be; `labels` whole
    numbers or names `[N]`; `classes` names in the order of the numbers. Floats are refused: their range is not known."""

    layout = "npz"

    @classmethod
    def found(cls, path: Path) -> Npz | None:
        return cls(path) if path.suffix.lower() == ".npz" else None

    def key(self) -> Key:
        return file_key(self.path)

    def count(self, split: str | None) -> int:
        with self._member("images") as (_, shape, _):
            return shape[0] if shape else 0

    def names(self) -> tuple[str, ...] | None:
        with self._archive() as archive:
            if "classes.npy" not in archive.namelist():
                return None
        return tuple(normal(str(name)) for name in self._whole("classes"))

    @cached_property
    def _labels(self) -> list[Label]:
        labels = self._whole("labels")
        if labels.ndim != 1 or labels.dtype.kind not in "iuUS":
            raise self._wrong(f"labels are {labels.dtype} {labels.shape}", "give whole numbers or names, one an image")
        if labels.dtype.kind == "S":
            labels = np.char.decode(labels, "utf-8")
        return [normal(label) if isinstance(label, str) else int(label) for label in labels.tolist()]

    def entries(self, split: str | None) -> Iterator[Entry]:
        labels = self._labels
        with self._member("images") as (stream, shape, dtype):
            if dtype != np.uint8 or len(shape) not in (3, 4):
                advice = "give uint8 0..255 [N, H, W] or [N, H, W, C], e.g. (images * 255).round().astype('uint8')"
                raise self._wrong(f"images are {dtype} {shape}", advice)
            if shape[0] != len(labels):
                raise self._wrong(f"there are {shape[0]:,} images and {len(labels):,} labels", "give one label an image")
            channels_first = len(shape) == 4 and shape[3] not in COLOURS
            if channels_first and shape[1] not in COLOURS:
                raise self._wrong(f"images of shape {shape} have no axis of 1, 3 or 4 channels", "give [N, H, W, C]")
            size = math.prod(shape[1:])
            for index, label in enumerate(labels):
                content = stream.read(size)
                if len(content) < size:
                    raise Broken("it ends before it should")
                pixels = np.frombuffer(content, np.uint8).reshape(shape[1:])
                yield Entry(f"image {index}", label, pixels.transpose(1, 2, 0) if channels_first else pixels)

    def _wrong(self, why: str, advice: str) -> DataError:
        return DataError(f"{self.path} cannot be used ({why}); {advice}.")

    @contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        try:
            with open_regular(self.path) as stream, zipfile.ZipFile(stream) as archive:
                yield archive
        except BROKEN_ARCHIVE as error:
            raise self._wrong(reason(error), f"restore it, or save it again with {_SAVE}") from error

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[BinaryIO, tuple[int, ...], np.dtype[Any]]]:
        """An array's bytes, shape and type, read from its header alone."""
        with self._archive() as archive:
            if f"{name}.npy" not in archive.namelist():
                raise self._wrong(f"it has no {name!r}", f"save it with {_SAVE}")
            with archive.open(f"{name}.npy") as stream:
                version = np.lib.format.read_magic(stream)  # pyright: ignore[reportArgumentType]
                read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, is_fortran, dtype = read(stream)
                if dtype.hasobject:
                    raise self._wrong(f"{name} are pickled objects, which could run code", "save plain numbers or text")
                if is_fortran and len(shape) > 1:
                    raise self._wrong(f"{name} lie column by column", f"save np.ascontiguousarray({name})")
                yield stream, shape, dtype  # pyright: ignore[reportReturnType] (reads as a BinaryIO does)

    def _whole(self, name: str) -> NDArray[Any]:
        with self._member(name) as (stream, shape, dtype):
            size = math.prod(shape) * dtype.itemsize
            if size > MAX_LABEL_BYTES:
                raise Broken(f"its {name} are larger than {MAX_LABEL_BYTES:,} bytes")
            content = stream.read(size)
            if len(content) < size:
                raise Broken("it ends before it should")
            return np.frombuffer(content, dtype).reshape(shape)
