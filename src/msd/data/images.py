"""Real images: for pretraining a teacher and as the reference of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from msd.diffusion.codec import AffineCodec
from msd.errors import DataError
from msd.files import sha256_bytes


@dataclass(frozen=True)
class ImageSet:
    """Images in memory: `pixels` `[N, C, H, W]` float32 in [-1, 1], `labels` `[N]` int64 in 0..num_conditions-1."""

    name: str
    pixels: Tensor
    labels: Tensor
    num_conditions: int
    licence: str

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    @cached_property
    def prior(self) -> tuple[float, ...]:
        """How often each class occurs; sums to 1."""
        counts = torch.bincount(self.labels, minlength=self.num_conditions).double()
        return tuple((counts / counts.sum()).tolist())

    @cached_property
    def hash(self) -> str:
        """Identity of the reference set, stored beside every number measured against it."""
        return sha256_bytes(self.pixels.numpy().tobytes() + self.labels.numpy().tobytes())

    def codec(self, sigma_data: float) -> AffineCodec:
        """The map after which all pixels together have mean 0 and standard deviation sigma_data."""
        deviation = float(self.pixels.double().std())
        return AffineCodec(shift=float(self.pixels.double().mean()), scale=deviation / sigma_data)


def load_digits() -> ImageSet:
    """scikit-learn's copy of the UCI handwritten digits: 1,797 scans of 8x8 pixels in 17 grey levels."""
    from sklearn import datasets

    values, targets = datasets.load_digits(return_X_y=True)
    pixels = torch.from_numpy(values).float().reshape(-1, 1, 8, 8) / 8 - 1
    labels = torch.from_numpy(targets).long()
    return ImageSet(
        "digits", pixels, labels, num_conditions=10, licence="CC BY 4.0 (UCI ML repository, Alpaydin and Kaynak)"
    )


IMAGE_SETS = {"digits": load_digits}


def load_images(name: str) -> ImageSet:
    """The image set of that name. Raises DataError."""
    if name not in IMAGE_SETS:
        raise DataError(f"there is no image set {name!r}; choose one of {', '.join(IMAGE_SETS)}.")
    return IMAGE_SETS[name]()
