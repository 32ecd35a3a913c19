"""A quick look at a source, before anything is decoded and kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from msd import checks
from msd.data.decode import Damaged, Decoding, background, decode, quiet
from msd.data.sources.classes import in_order
from msd.data.sources.scanning import scan
from msd.data.sources.source import Entry, Label, Source
from msd.errors import DataError
from msd.recipe import DataSection


@dataclass(frozen=True)
class Peek:
    """What a quick look found. Classes and their counts are of all images where names alone tell them (`is_whole`), else of
    those looked at; sizes ("width x height"), kinds and channels are always of the `num_looked_at`."""

    source: str
    layout: str
    splits: tuple[str, ...]
    classes: dict[str, int]
    num_images: int
    is_whole: bool
    num_looked_at: int
    sizes: dict[str, int]
    kinds: dict[str, int]
    channels: int
    damaged: tuple[str, ...]


def peek(data: DataSection, num: int = 200) -> Peek:
    """Look at up to about `num` images of `data.source`, the first ones of every class where names alone tell them.

    Makes no cache. Raises DataError for what is no source, but not for damaged images, or classes that cannot be trained on.
    """
    checks.instance(data, DataSection, "data", "give a DataSection", error=DataError)
    num = checks.whole(num, "num", 1, error=DataError)
    source = scan(data.source)
    source.check_split(data.split)
    how = Decoding(None, data.channels, data.fit, background(data.background))
    counts: Counter[Label] = Counter()
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    damaged: list[str] = []
    channels, looked_at = data.channels or 1, 0
    share = _share(source, data, num)
    with quiet():
        for entry in source.entries(data.split):
            if looked_at >= num and not source.is_listed:
                break
            counts[entry.label] += 1
            if counts[entry.label] > share or looked_at >= 2 * num:
                continue
            looked_at += 1
            try:
                found = decode(_content(entry), how)
            except Damaged as error:
                damaged.append(f"{entry.name}: {error}")
                continue
            sizes["x".join(map(str, found.size))] += 1
            kinds[found.kind] += 1
            channels = max(channels, len(found.pixels))
    return Peek(
        str(source.path), source.layout, source.splits(), _classes(counts, source, data), counts.total(), source.is_listed,
        looked_at, dict(sizes.most_common()), dict(kinds.most_common()), channels, tuple(damaged),
    )  # fmt: skip


def _content(entry: Entry):
    if isinstance(entry.content, Damaged):
        raise entry.content
    return entry.content


def _share(source: Source, data: DataSection, num: int) -> int:
    """How many images of each class are looked at, if labels come without reading images."""
    known = data.classes or source.names()
    return -(-num // len(known)) if source.is_listed and known else num


def _classes(counts: Counter[Label], source: Source, data: DataSection) -> dict[str, int]:
    """Names and counts in order, as far as they are known: a look never refuses them."""
    names = data.classes or source.names()
    if counts and names and all(isinstance(label, int) and 0 <= label < len(names) for label in counts):
        return {name: counts[number] for number, name in enumerate(names)}
    named = Counter({str(label): num for label, num in counts.items()})
    for name in names or ():
        named.setdefault(name, 0)
    return {name: named[name] for name in in_order(set(named))}
