"""Real images of one part: random batches by the part's prior, of its own classes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from msd.conditions.partition import Partition
from msd.diffusion.draw import Draw
from msd.errors import DataError

if TYPE_CHECKING:
    from msd.data.images import ImageSet


class PartImages:
    """Batches of real images of part `part`: a class by the part's prior, then one of its images, each as likely.

    Raises DataError when the images have other classes than the partition, or lack one that the part is asked for.
    """

    def __init__(self, images: ImageSet, partition: Partition, part: int):
        if images.num_conditions != partition.num_conditions:
            raise DataError(
                f"the real images of {images.name} have {images.num_conditions} classes, the partition "
                f"{partition.num_conditions}; set data to images of the classes that the teacher knows."
            )
        self._images, self._partition, self._part = images, partition, part
        self._counts = torch.bincount(images.labels, minlength=images.num_conditions)
        self._by_class = torch.argsort(images.labels, stable=True)
        self._first = self._counts.cumsum(0) - self._counts
        missing = ((partition.weights(part) > 0) & (self._counts == 0)).nonzero().flatten().tolist()
        if missing:
            names = [images.classes[key] for key in missing[:5]] + ["..."] * (len(missing) > 5)
            raise DataError(
                f"part {part} has no real images of {', '.join(names)} among those of "
                f"{images.name}; add some to data, or leave the adm stage out for these classes."
            )

    def batch(self, num: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """This process's rows of `num` images, as pixels `[n, C, H, W]` in [-1, 1], and their keys `[n]` int64.

        `draw` is on the CPU, where the images are looked up.
        """
        keys = self._partition.sample(self._part, num, draw)
        within = (draw.uniform(num) * self._counts[keys]).long().minimum(self._counts[keys] - 1)
        return self._images.batch(self._by_class[self._first[keys] + within]), keys
