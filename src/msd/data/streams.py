"""Clean samples of one part, by its prior: what is noised where a stage looks at samples of its own conditions only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.data.pairs import PairSet
from msd.diffusion.codec import Codec
from msd.diffusion.draw import Draw
from msd.errors import DataError

Read = Callable[[Tensor], Tensor]
"""From indices `[n]` on the CPU to clean samples `[n, ...]` in the model's space."""


class SampleStream:
    """Samples with their keys, drawn as the part asks for them: a key by the part's prior, then any sample of that key.

    `keys` `[P]` int64 are those of all samples, of other parts too. The last `held_out` of each key's samples, at most
    `most_held_out` in all, are never drawn. Raises DataError naming a class of the part that has no sample.
    """

    def __init__(
        self,
        keys: Tensor,
        read: Read,
        partition: Partition,
        part: int,
        what: str,
        held_out: float = 0.0,
        most_held_out: int = 256,
    ):
        self._read, self._partition, self._part = read, partition, part
        counts = torch.bincount(keys, minlength=partition.num_conditions)
        own = torch.tensor(partition.parts[part])
        if missing := [key for key in partition.parts[part] if partition.prior[key] > 0 and not counts[key]]:
            raise DataError(f"there are no {what} of class {missing[0]}, which part {part} owns; add some.")
        self._order = keys.argsort(stable=True)
        self._begin = counts.cumsum(0) - counts
        share = min(held_out, most_held_out / max(1, int(counts[own].sum())))
        held = (counts * share).long()
        self._drawn = counts - held
        self._held = torch.cat(
            [
                self._order[self._begin[key] + self._drawn[key] : self._begin[key] + counts[key]]
                for key in partition.parts[part]
            ]
        )
        self._held_keys = keys[self._held]

    def batch(self, size: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """This process's slice of `size` clean samples and their keys, on the draw's device."""
        keys = draw.choice(self._partition.weights(self._part), size)
        place = draw.uniform(size).cpu()
        index = keys.cpu()
        chosen = self._begin[index] + (place * self._drawn[index]).long()
        return self._read(self._order[chosen]).to(draw.device), keys

    def held_out(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """What is never drawn, and its keys: the same for every process."""
        return self._read(self._held).to(device), self._held_keys.to(device)


def pair_stream(pairs: PairSet, partition: Partition, part: int, held_out: float = 0.0) -> SampleStream:
    """The samples of the part's pairs."""
    return SampleStream(pairs.keys, lambda index: pairs.samples[index], partition, part, "pairs", held_out)


def image_stream(images: ImageSet, codec: Codec, partition: Partition, part: int, held_out: float = 0.0) -> SampleStream:
    """The part's real images, in the model's space. Raises DataError for images of another shape or number of classes."""
    if images.num_conditions != partition.num_conditions:
        raise DataError(
            f"{images.name} has {images.num_conditions} classes, the teacher {partition.num_conditions}; set data to the "
            "images that the teacher learned."
        )

    def read(index: Tensor) -> Tensor:
        return codec.encode(images.batch(index))

    return SampleStream(images.labels, read, partition, part, f"images in {images.name}", held_out)
