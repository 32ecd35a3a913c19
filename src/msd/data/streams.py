"""Clean samples of one part: what is noised where a stage looks at samples, real or made, of its own conditions only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from msd.conditions.partition import Partition
from msd.data.pairs import Pairs
from msd.diffusion.denoiser import DenoiserSpec
from msd.diffusion.draw import Draw
from msd.errors import DataError

if TYPE_CHECKING:
    from msd.data.images import ImageSet

MOST_HELD_OUT = 256
MOST_NAMED = 5


class SampleStream:
    """Batches of the samples of part `part`: a key by the part's prior, then one of its samples, each as likely.

    `keys` `[P]` int64 are those of all samples, of other parts too; `read` makes of indices `[n]` clean samples `[n, ...]`
    in the model's space. The last `held_out` of each key's samples, at most MOST_HELD_OUT in all, are never drawn. Raises
    DataError naming classes that the part is asked for and that have no sample, with `what` and `remedy`.
    """

    def __init__(
        self,
        keys: Tensor,
        read: Callable[[Tensor], Tensor],
        partition: Partition,
        part: int,
        *,
        what: str,
        remedy: str,
        classes: Sequence[str] = (),
        held_out: float = 0.0,
    ):
        self._read, self._partition, self._part = read, partition, part
        counts = torch.bincount(keys, minlength=partition.num_conditions)
        wanted = partition.weights(part) > 0
        if missing := (wanted & (counts == 0)).nonzero().flatten().tolist():
            raise DataError(f"part {part} has no {what} of {_named(missing, classes)}; {remedy}.")
        self._keys, self._order = keys, keys.argsort(stable=True)
        self._begin = counts.cumsum(0) - counts
        num_own = max(1, int(counts[wanted].sum()))
        self._drawn = counts - (counts * min(held_out, MOST_HELD_OUT / num_own)).long()
        kept = [
            self._order[self._begin[key] + self._drawn[key] : self._begin[key] + counts[key]]
            for key in wanted.nonzero().flatten()
        ]
        self._held_out = torch.cat(kept)

    def batch(self, num: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """This process's rows of `num` samples and their keys `[n]`, on the CPU, as must be the draw."""
        keys = self._partition.sample(self._part, num, draw)
        within = (draw.uniform(num) * self._drawn[keys]).long().minimum(self._drawn[keys] - 1)
        return self._read(self._order[self._begin[keys] + within]), keys

    def held_out(self) -> tuple[Tensor, Tensor]:
        """What is never drawn, and its keys: the same for every process."""
        return self._read(self._held_out), self._keys[self._held_out]


def pair_stream(pairs: Pairs, partition: Partition, part: int, held_out: float = 0.0) -> SampleStream:
    """The samples of the part's pairs."""
    return SampleStream(
        pairs.keys,
        pairs.samples_of,
        partition,
        part,
        what="pairs",
        remedy="make more of them (pairs.num_pairs)",
        held_out=held_out,
    )


def image_stream(
    images: ImageSet, spec: DenoiserSpec, partition: Partition, part: int, held_out: float = 0.0
) -> SampleStream:
    """The part's real images, in the model's space of the teacher's `spec`.

    Raises DataError for images of another shape or other classes than the teacher's.
    """
    _check_fit(images, spec, partition.num_conditions)
    return SampleStream(
        images.labels,
        lambda index: spec.codec.encode(images.batch(index)),
        partition,
        part,
        what="real images",
        remedy=_more_of(images),
        classes=images.classes,
        held_out=held_out,
    )


def check_images(images: ImageSet, spec: DenoiserSpec, prior: Sequence[float]) -> None:
    """Raises DataError for images of another shape or other classes than those of the teacher with `spec`, or with none of
    a class that its `prior` has."""
    _check_fit(images, spec, len(prior))
    counts = torch.bincount(images.labels, minlength=len(prior)).tolist()
    if missing := [key for key, share in enumerate(prior) if share > 0 and not counts[key]]:
        raise DataError(f"there are no real images of {_named(missing, images.classes)}; {_more_of(images)}.")


def _check_fit(images: ImageSet, spec: DenoiserSpec, num_conditions: int) -> None:
    if images.num_conditions != num_conditions:
        raise DataError(
            f"the real images of {images.name} have {images.num_conditions} classes, the teacher {num_conditions}; set data "
            "to images of the classes that the teacher knows."
        )
    if images.pixel_shape != tuple(spec.pixel_shape):
        raise DataError(
            f"the real images of {images.name} have shape {images.pixel_shape}, the teacher's {tuple(spec.pixel_shape)}; "
            "set data to images of that shape."
        )


def _more_of(images: ImageSet) -> str:
    return f"add some to {images.name}, or leave out the stages that see images"


def _named(keys: Sequence[int], classes: Sequence[str]) -> str:
    """The first of the classes, by name where they have one."""
    names = [classes[key] if classes else str(key) for key in keys[:MOST_NAMED]]
    return ", ".join(names + ["..."] * (len(keys) > MOST_NAMED))
