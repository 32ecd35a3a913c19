"""One pass over a source: everything is decoded, counted and staged, and what cannot be used is said at its end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable

import numpy as np

from msd.data.decode import Damaged, Decoded, Decoding
from msd.data.findings import Findings
from msd.data.sources import Entry, Source, peek
from msd.data.sources.classes import ordered
from msd.data.sources.source import Label, shown
from msd.data.staging import Staging, decoded
from msd.errors import DataError
from msd.recipe import DataSection

MAX_SIZES = 100
"""How many of the sizes that images came in are told."""
REPORT_EVERY = 256

OnProgress = Callable[[int, int], None]
"""Told (images done, images in all); 0 in all where that shows only at the end."""


class Reading:
    """What a pass over a source counts, and what follows from it."""

    def __init__(self, source: Source, data: DataSection):
        self._source, self._data = source, data
        self._path = shown(str(source.path))
        self._labels: dict[Label, int] = {}
        self._order = array("q")
        self._counts: Counter[Label] = Counter()
        self._splits: Counter[str] = Counter()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._kinds: Counter[str] = Counter()
        self._damaged: list[str] = []
        self._names: tuple[str, ...] = ()
        self._index: dict[Label, int] = {}

    def fill(self, staging: Staging, how: Decoding, on_progress: OnProgress) -> None:
        """Decode all of it. Raises DataError."""
        total = self._source.count(self._data.split) or 0
        for entry, found in decoded(self._source.entries(self._data.split), how):
            if isinstance(found, Damaged):
                self._damaged.append(f"{entry.name}: {found}")
            else:
                self._check_size(entry, found, staging)
                staging.add(found.pixels)
                self._count(entry, found)
            done = staging.num + len(self._damaged)
            if done % REPORT_EVERY == 0:
                on_progress(done, total)
        done = staging.num + len(self._damaged)
        on_progress(done, done)
        self._check_damage(staging.num)

    def _count(self, entry: Entry, found: Decoded) -> None:
        self._order.append(self._labels.setdefault(entry.label, len(self._labels)))
        self._counts[entry.label] += 1
        self._sizes[found.size] += 1
        self._kinds[found.kind] += 1
        if entry.split:
            self._splits[entry.split] += 1

    def _check_size(self, entry: Entry, found: Decoded, staging: Staging) -> None:
        """That the image fits to those before it; it does if the recipe says a size."""
        height, width = found.pixels.shape[1:]
        if height == width and (not staging.num or height == staging.shape[1]):
            return
        sizes = Counter({f"{width}x{height}": num for (width, height), num in self._sizes.items()})
        sizes[f"{width}x{height}"] += 1
        sizes += Counter(peek(self._data).sizes)
        names = [size for size, _ in sizes.most_common(5)]
        listed = ", ".join(names) + (", ..." if len(sizes) > len(names) else "")
        if len(sizes) == 1:
            raise DataError(f"the images of {self._path} are not square ({listed}); set data.size=32, or what suits them.")
        raise DataError(
            f"the images of {self._path} differ in size ({listed}; {entry.name} is {width}x{height}); set data.size=32, or "
            "what suits them."
        )

    def _check_damage(self, num: int) -> None:
        damaged = self._damaged
        if not num and not damaged:
            part = f" in its part {self._data.split}" if self._data.split else ""
            raise DataError(f"{self._path} holds no images{part}; give a source that has some.")
        first = f"{self._path}: {damaged[0]}" if damaged else ""
        if not num:
            raise DataError(f"none of the {len(damaged):,} images of {first}; give a source that can be read.")
        if damaged and not self._data.skip_damaged:
            name, _, why = damaged[0].partition(": ")
            rest = f", the first of {len(damaged):,} such of {num + len(damaged):,}" if len(damaged) > 1 else ""
            what = "them" if rest else "it"
            raise DataError(
                f"{self._path}: {name} is damaged ({why}){rest}; mend or remove {what}, or set data.skip_damaged=true."
            )

    def labelled(self) -> tuple[tuple[str, ...], array[int]]:
        """The classes' names, and the label of every image in the order they came. Raises DataError."""
        names, index = ordered(self._counts, self._source.names(), self._data.classes, self._path)
        self._names, self._index = names, index
        numbers = np.array([index[label] for label in self._labels], np.int64)
        return names, array("q", numbers[np.frombuffer(self._order, np.int64)].tobytes())

    def findings(self, staging: Staging, content: str) -> Findings:
        classes = dict.fromkeys(self._names, 0)
        for label, num in self._counts.items():
            classes[self._names[self._index[label]]] += num
        sizes = {f"{width}x{height}": num for (width, height), num in self._sizes.most_common(MAX_SIZES)}
        if rest := staging.num - sum(sizes.values()):
            sizes["others"] = rest
        source, kinds = self._source, dict(self._kinds.most_common())
        return Findings(
            str(source.path), source.layout, dict(self._splits), staging.num, classes, sizes, kinds, staging.shape[0],
            tuple(self._damaged), content, max(0, source.num_ignored),
        )  # fmt: skip
