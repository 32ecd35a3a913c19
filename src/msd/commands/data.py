"""`msd data check`: what a source of images holds, and how a recipe would bring it to one size."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd import checks
from msd.commands.console import Output
from msd.commands.streams import one_line
from msd.commands.tables import Column, fitted
from msd.conditions.names import extremes
from msd.errors import DataError, RecipeError
from msd.recipe import PACKAGED_PREFIX, DataSection, revised
from msd.recipe.messages import nearest

if TYPE_CHECKING:
    from msd.data.findings import Findings
    from msd.data.sources import Peek

DEFAULT_SIZE = 32
"""Pixels a side for images that differ in size or are large: more takes hours on two cores."""
LARGEST_OWN_SIZE = 64
"""Square images of one size up to this keep it."""
SHOWN = 10
"""Damaged files on the screen; all of them are in the JSON."""
SHOWN_CLASSES = 40
LOOKED_AT = 50
"""Images whose edges say what padding shall look like."""
FEW = 20
"""Images of a class below which a sentence says that they are few."""

CLASS_COLUMNS = (
    Column("number"),
    Column("class", "left", folds=True),
    Column("images"),
    Column("share", rank=1),
)


@dataclass(frozen=True)
class Look:
    """What was found in a source, and the recipe section that it was read by."""

    data: DataSection
    findings: Findings
    cache: Path | None = None
    """The folder of the decoded images; packaged ones have none."""


def section(source: str | Path, overrides: Sequence[str] | None = None, *, size: int | None = None) -> DataSection:
    """The `data` of a recipe for `source`, with `data.KEY=VALUE` applied. Raises RecipeError or DataError."""
    text = str(checks.path(source, "SOURCE", error=DataError))
    for override in overrides or ():
        key = override.partition("=")[0]
        first, _, name = key.partition(".")
        if first != "data" or name not in DataSection.model_fields:
            known = [f"data.{one}" for one in DataSection.model_fields]
            raise RecipeError(f"--set {key[:80]!r} says nothing about the images{nearest(key[:80], known)}")
    if not text.startswith(PACKAGED_PREFIX) and not os.path.lexists(text):
        raise DataError(f"there is no {one_line(text)}; give the path of a folder, a zip or an .npz file of images.")
    data = revised({"name": "check", "data": {"source": text}}, list(overrides or ())).data
    return data if size is None else data.model_copy(update={"size": size})


def chosen_size(data: DataSection, peek: Peek) -> DataSection:
    """`data` with the size and fit that images like these are brought to, unless it says so itself.

    Square images of one size of at most 64 keep it, put on the next multiple of 8 where a network needs that; all others are
    cropped and shrunk, or enlarged, to 32x32.
    """
    if data.is_packaged:
        return data
    own, size = _one_square(peek.sizes), data.size
    if size is None:
        size = DEFAULT_SIZE if own is None or own > LARGEST_OWN_SIZE else max(8, 8 * -(-own // 8))
    is_little_larger = own is not None and own < size < max(9, own + 8)
    fit = "pad" if is_little_larger and "fit" not in data.model_fields_set else data.fit
    return data.model_copy(update={"size": size, "fit": fit})


def _one_square(sizes: Mapping[str, int]) -> int | None:
    """The side of the images, if they are square and alike."""
    if len(sizes) != 1:
        return None
    width, _, height = next(iter(sizes)).partition("x")
    return int(width) if width == height and width.isdigit() else None


def look(data: DataSection, output: Output) -> Look:
    """Read every image of the source once, into its cache, and say what was found. Raises DataError."""
    if data.is_packaged:
        return Look(data, _packaged(data))
    from msd.data.cache import findings
    from msd.data.sources import peek

    first = peek(data)
    was, data = data, chosen_size(data, first)
    if data.fit == "pad" and was.fit != "pad" and "background" not in was.model_fields_set:
        data = data.model_copy(update={"background": border_of(data)})
    advance = _Bar(output, "reading images", first.num_images)
    try:
        return Look(data, *findings(data, advance))
    finally:
        advance.close()


def border_of(data: DataSection) -> str:
    """The colour around the first images, by the median of their outermost pixels: what padding shall look like."""
    import numpy as np

    from msd.data.decode import Damaged, Decoding, decode
    from msd.data.sources import scan

    found = []
    for entry in itertools.islice(scan(data.source).entries(data.split), LOOKED_AT):
        if isinstance(entry.content, Damaged):
            continue
        with suppress(Damaged):
            pixels = decode(entry.content, Decoding(None, 3)).pixels
            edges = (pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1])
            found.append(np.median(np.concatenate(edges, 1), 1))
    if not found:
        return DataSection().background
    red, green, blue = (int(value) for value in np.median(found, 0))
    colour = f"#{red:02x}{green:02x}{blue:02x}"
    return {"#000000": "black", "#ffffff": "white"}.get(colour, colour)


class _Bar:
    """A bar that begins when there is something to show: a cache that exists shows none."""

    def __init__(self, output: Output, title: str, total: int):
        self._output, self._title, self._total = output, title, total
        self._shown, self._context = 0, None

    def __call__(self, done: int, total: int) -> None:
        if self._context is None:
            self._context = self._output.progress(self._title, total or self._total)
            self._advance = self._context.__enter__()
        self._advance(done - self._shown)
        self._shown = done

    def close(self) -> None:
        if self._context is not None:
            self._context.__exit__(None, None, None)


def _packaged(data: DataSection) -> Findings:
    from msd.data.findings import Findings
    from msd.data.images import load_images

    images = load_images(data)
    counts = images.labels.bincount(minlength=images.num_conditions).tolist()
    channels, height, width = images.pixel_shape
    return Findings(
        source=data.source,
        layout="packaged",
        splits={},
        num_images=len(images),
        classes=dict(zip(images.classes, counts, strict=True)),
        sizes={f"{width}x{height}": len(images)},
        kinds={"grey" if channels == 1 else "colour": len(images)},
        channels=channels,
        damaged=(),
        hash=images.hash,
    )


def check(source: str | Path, overrides: Sequence[str] | None, output: Output) -> dict[str, Any]:
    """Show and return what `source` holds: see `report`. Raises DataError, RecipeError."""
    found = look(section(source, overrides), output)
    value = report(found)
    show(found, output)
    return value


def report(found: Look) -> dict[str, Any]:
    """What was found as plain values; nothing is left out."""
    facts, data = found.findings, found.data
    return {
        "source": facts.source,
        "layout": facts.layout,
        "splits": dict(facts.splits),
        "num_images": facts.num_images,
        "classes": dict(facts.classes),
        "remarks": remarks(facts),
        "sizes": dict(facts.sizes),
        "kinds": dict(facts.kinds),
        "channels": facts.channels,
        "damaged": list(facts.damaged),
        "ignored": facts.ignored,
        "read_as": {"size": data.size, "channels": facts.channels, "fit": data.fit, "background": data.background},
        "hash": facts.hash,
        "cache": None if found.cache is None else str(found.cache),
    }


def remarks(facts: Findings) -> list[str]:
    """Sentences about what may surprise: classes that are rare or few, files that could not be read."""
    said = []
    counts = {name: count for name, count in facts.classes.items() if count}
    if ends := extremes(list(counts.values())):
        least, most = (list(counts)[place] for place in ends)
        said.append(
            f"{most} occurs {counts[most] / counts[least]:.2g} times as often as {least} ({counts[most]:,} and "
            f"{counts[least]:,} images), and will be made as much more often; data.prior=uniform makes all alike."
        )
    few = [name for name, count in facts.classes.items() if count < FEW]
    if few:
        named = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        said.append(
            f"{len(few)} of {len(facts.classes)} classes have fewer than {FEW} images ({named}): expect copies of them."
        )
    if len(facts.classes) == 1:
        said.append("there is one class only, and students are divided by class.")
    if ignored := facts.ignored:
        said.append(f"{ignored:,} files are no images, or not named by the source's list, and are not looked at.")
    if facts.damaged:
        said.append(f"{len(facts.damaged)} files could not be read and are left out.")
    return said


def show(found: Look, output: Output) -> None:
    """The findings for people."""
    facts = found.findings
    rows = [
        (str(number), one_line(name), f"{count:,}", f"{count / max(1, facts.num_images):.1%}")
        for number, (name, count) in enumerate(list(facts.classes.items())[:SHOWN_CLASSES])
    ]
    table = fitted("classes", CLASS_COLUMNS, rows, output.width)
    left = len(facts.classes) - len(rows)
    if left > 0:
        table.caption = f"and {left:,} more classes (--json names all)"
    output.show(table)
    for line in lines(found):
        output.say(line)
    for sentence in remarks(facts):
        output.say(sentence)
    for entry in facts.damaged[:SHOWN]:
        output.say(f"damaged: {entry}")
    if len(facts.damaged) > SHOWN:
        output.say(f"and {len(facts.damaged) - SHOWN:,} more damaged files (--json names all)")


def lines(found: Look) -> list[str]:
    """Splits, sizes, kinds and what becomes of them, a line each."""
    facts, data = found.findings, found.data
    said = [f"{facts.source}: {facts.num_images:,} images of {len(facts.classes)} classes ({facts.layout})"]
    if facts.splits:
        said.append(f"parts of the source: {counted(facts.splits)}" + (f"; of them {data.split}" if data.split else ""))
    said.append(f"sizes (width x height): {counted(facts.sizes)}")
    said.append(f"kinds: {counted(facts.kinds)}")
    colours = "grey" if facts.channels == 1 else "colour"
    size = f"{data.size}x{data.size}" if data.size else next(iter(facts.sizes), "their own size")
    said.append(f"read as {size} pixels, {colours} (fit: {data.fit}, on {data.background})")
    said.append(f"hash of the images: {facts.hash[:16]}")
    if found.cache is not None:
        said.append(f"decoded images are kept in {found.cache}")
    return said


def counted(counts: Mapping[str, int], most: int = 5) -> str:
    """ "28x28 (100), 30x28 (2)", the first `most` of them."""
    pieces = [f"{name} ({count:,})" for name, count in list(counts.items())[:most]]
    left = len(counts) - len(pieces)
    return ", ".join(pieces) + (f" and {left:,} more" if left > 0 else "")
