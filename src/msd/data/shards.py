"""Pairs where they lie: shards that are mapped, of which a batch copies its own rows and nothing else is held.

A shard is read through once, when the set is opened, for its checksum; from there on it is known by its stamp
(`data.mapped`), so a training reads the set once and not at every look.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msd import checks
from msd.data.mapped import KnownFile
from msd.data.pairs import AGAIN, KIND, MANIFEST, PairSet, PairsManifest
from msd.errors import DataError
from msd.reading import Broken, Kind, Stored, parse_json, read_model, reason, validated

MOST_MAPPED = 256
"""Shards that are mapped at a time: each takes one of the files that a process may have open, often 1,024."""
MOST_HEADER_BYTES = 2**16
NOISE, KEYS, SAMPLES = "noise", "keys", "samples"
FLOAT, WHOLE = "F32", "I64"
NUMBERS = {FLOAT: "<f4", WHOLE: "<i8"}
"""Numpy's names for safetensors' types, those that pairs are stored in."""
_KIND = Kind("a shard of pairs", AGAIN, DataError)


class _Tensor(Stored):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_Header = dict[str, _Tensor]


class ShardedPairs:
    """All pairs of a folder, in the model's space: `keys` `[P]` int64 in memory, noise and samples in mapped shards.

    One thread reads at a time. What is read of a shard that is gone, cut or written to meanwhile raises DataError.
    """

    def __init__(self, files: list[KnownFile]):
        """Raises DataError for shards that do not hold pairs of one shape."""
        self._files = files
        layouts = [_layout(file) for file in files]
        self.shape = layouts[0][NOISE].shape[1:]
        for file, layout in zip(files, layouts, strict=True):
            num = layout[KEYS].shape[:1]
            told = {name: (one.dtype, one.shape) for name, one in layout.items()}
            values = (FLOAT, (*num, *self.shape))
            if told != {NOISE: values, KEYS: (WHOLE, num), SAMPLES: values} or not num:
                raise DataError(f"{file.path} does not fit to the other shards; remove {MANIFEST}, and {AGAIN}.")
        self._layouts = layouts
        sizes = [layout[KEYS].shape[0] for layout in layouts]
        self._begins = np.cumsum([0, *sizes[:-1]])
        self._mapped = lru_cache(maxsize=MOST_MAPPED)(self._map)
        self.keys = torch.from_numpy(np.concatenate([self._read_keys(shard) for shard in range(len(files))]))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Tensor) -> PairSet:
        """The pairs `index` `[n]`, in memory."""
        noise, samples = self._rows(index, NOISE, SAMPLES)
        return PairSet(noise, self.keys[index], samples)

    def samples_of(self, index: Tensor) -> Tensor:
        """The samples of the pairs `index` `[n]` alone."""
        return self._rows(index, SAMPLES)[0]

    def _rows(self, index: Tensor, *names: str) -> list[Tensor]:
        numbers = index.numpy()
        shards = np.searchsorted(self._begins, numbers, side="right") - 1
        rows = numbers - self._begins[shards]
        found = [torch.empty(len(numbers), *self.shape) for _ in names]
        targets, sources, mapped = [one.numpy() for one in found], list[NDArray[Any]](), -1
        places = shards.argsort()
        for place, shard, row in zip(places.tolist(), shards[places].tolist(), rows[places].tolist(), strict=True):
            if shard != mapped:
                self._files[shard].check()
                arrays, mapped = self._mapped(shard), shard
                sources = [arrays[name] for name in names]
            # Row by row: faster than gathering by shard, and numpy lets go of Python's lock while a page is fetched.
            for target, source in zip(targets, sources, strict=True):
                target[place] = source[row]
        return found

    def _map(self, shard: int) -> dict[str, NDArray[Any]]:
        mapped = self._files[shard].map()
        return {
            name: mapped.array(NUMBERS[one.dtype], one.shape, one.data_offsets[0])
            for name, one in self._layouts[shard].items()
        }

    def _read_keys(self, shard: int) -> NDArray[Any]:
        return self._map(shard)[KEYS].astype(np.int64)


def _layout(file: KnownFile) -> _Header:
    """Where in the file each tensor lies, by its header. Raises DataError."""
    size = file.stamp.num_bytes
    try:
        if size < 8:
            raise Broken("it has no header")
        content = file.map().content
        length = int.from_bytes(content[:8], "little")
        if length > min(size - 8, MOST_HEADER_BYTES):
            raise Broken("its header has no end")
        header = parse_json(content[8 : 8 + length].decode())
        layout = validated(header, _Header, _KIND, source=str(file.path))
        if set(layout) != {NOISE, KEYS, SAMPLES}:
            raise Broken(f"it does not hold {NOISE}, {KEYS} and {SAMPLES}")
        return {name: _placed(one, 8 + length, size) for name, one in layout.items()}
    except ValueError as error:  # Broken, or what is no UTF-8
        raise _KIND.unreadable(file.path, reason(error)) from error


def _placed(tensor: _Tensor, begin: int, size: int) -> _Tensor:
    """The tensor, its offsets counted from the file's beginning. Raises Broken."""
    kind = NUMBERS.get(tensor.dtype)
    if kind is None or min(tensor.shape, default=0) < 0:
        raise Broken("it holds other numbers than pairs do")
    start, end = (begin + offset for offset in tensor.data_offsets)
    if not begin <= start <= end <= size or end - start != math.prod(tensor.shape) * np.dtype(kind).itemsize:
        raise Broken("its tensors are not where it says")
    return tensor.model_copy(update={"data_offsets": (start, end)})


def open_pairs(folder: str | Path) -> ShardedPairs:
    """The pairs in `folder`, none of them in memory yet; each shard is read through once, for its checksum.

    Raises DataError naming a missing or damaged one.
    """
    folder = checks.path(folder, "the pairs' folder", error=DataError)
    stored = read_model(folder / MANIFEST, PairsManifest, KIND)
    files = [KnownFile.verified(folder / name, checksum, _KIND) for name, checksum in sorted(stored.shards.items())]
    pairs = ShardedPairs(files) if files else None
    if pairs is None or len(pairs) != stored.num_pairs:
        raise DataError(f"{folder} holds {len(pairs or ())} of {stored.num_pairs} pairs; {AGAIN}.")
    return pairs
