"""Which tensors of a UNet2DModel touch which channels: every part with the streams that it reads and writes.

A stream is what shares its channels because it is added together: one a level on the way down (with what is halved of it,
and the middle, which goes on in the deepest), one a level on the way up. Skips are the streams of the way down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from msd.networks.anatomy import Anatomy

Stream = tuple[Literal["image", "down", "up", "lost"], int]
"""A side and a level; "lost" is what a student has in place of a level that it dropped."""

IMAGE: Stream = ("image", 0)


@dataclass(frozen=True)
class Part:
    """A module of the smaller network, and that of the teacher's which it inherits from."""

    kind: Literal["conv", "norm", "resnet", "attention"]
    name: str
    source: str
    reads: tuple[Stream, ...]
    """More than one where they are concatenated."""
    writes: Stream


def wiring(mine: Anatomy, teacher: Anatomy) -> Iterator[Part]:
    """The parts of a network smaller than the teacher, in the order in which they run; of the teacher's own, with itself.

    Blocks are kept evenly, always the first and (on the way up) the last, which are those that change the width. The middle
    of a network that dropped levels has no counterpart, and is left out.
    """
    yield Part("conv", "conv_in", "conv_in", (IMAGE,), ("down", 0))
    yield from _down(mine, teacher)
    deepest: Stream = ("down", len(mine.levels) - 1)
    if mine.has_mid and len(mine.levels) == len(teacher.levels):
        yield _same("resnet", "mid_block.resnets.0", deepest)
        if mine.mid_attends:
            yield _same("attention", "mid_block.attentions.0", deepest)
        yield _same("resnet", "mid_block.resnets.1", deepest)
    yield from _up(mine, teacher)
    yield _same("norm", "conv_norm_out", ("up", 0))
    yield Part("conv", "conv_out", "conv_out", (("up", 0),), IMAGE)


def _down(mine: Anatomy, teacher: Anatomy) -> Iterator[Part]:
    kept = spread(mine.num_blocks, teacher.num_blocks)
    for place, level in enumerate(mine.levels):
        block = f"down_blocks.{place}"
        stream: Stream = ("down", place)
        for number, source in enumerate(kept):
            before: Stream = ("down", place - 1) if number == 0 and place > 0 else stream
            yield Part("resnet", f"{block}.resnets.{number}", f"{block}.resnets.{source}", (before,), stream)
            if level.attends_down:
                yield Part("attention", f"{block}.attentions.{number}", f"{block}.attentions.{source}", (stream,), stream)
        if place < len(mine.levels) - 1:
            yield _resampling(level.downsampling, f"{block}.downsamplers.0", stream)


def _up(mine: Anatomy, teacher: Anatomy) -> Iterator[Part]:
    kept, num_levels = spread(mine.num_blocks + 1, teacher.num_blocks + 1), len(mine.levels)
    before: Stream = ("down" if num_levels == len(teacher.levels) else "lost", num_levels - 1)
    for place, level in reversed(tuple(enumerate(mine.levels))):
        stream: Stream = ("up", place)
        block = f"up_blocks.{num_levels - 1 - place}"
        old = f"up_blocks.{len(teacher.levels) - 1 - place}"
        for number, source in enumerate(kept):
            skip: Stream = ("down", max(place - 1, 0) if number == mine.num_blocks else place)
            yield Part("resnet", f"{block}.resnets.{number}", f"{old}.resnets.{source}", (before, skip), stream)
            if level.attends_up:
                yield Part("attention", f"{block}.attentions.{number}", f"{old}.attentions.{source}", (stream,), stream)
            before = stream
        if place > 0:
            yield _resampling(level.upsampling, f"{block}.upsamplers.0", stream, f"{old}.upsamplers.0")


def spread(num: int, of: int) -> list[int]:
    """`num` of `of` blocks, evenly, the first and, of more than one, the last among them."""
    return [round(place * (of - 1) / (num - 1)) if num > 1 else 0 for place in range(num)]


def _same(kind: Literal["norm", "resnet", "attention"], name: str, stream: Stream) -> Part:
    return Part(kind, name, name, (stream,), stream)


def _resampling(kind: Literal["conv", "resnet"], name: str, stream: Stream, source: str | None = None) -> Part:
    ending = ".conv" if kind == "conv" else ""
    return Part(kind, name + ending, (source or name) + ending, (stream,), stream)
