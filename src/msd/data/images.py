"""Real images: for pretraining a teacher and as the reference of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from msd import checks
from msd.diffusion.codec import AffineCodec
from msd.errors import DataError
from msd.files import sha256_bytes


@dataclass(frozen=True)
class ImageSet:
    """Images in memory: `pixels` `[N, C, H, W]` float32 in [-1, 1], `labels` `[N]` int64 in 0..num_conditions-1.

    Raises DataError for others: a NaN among the pixels would otherwise show only as a training that diverges.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_conditions: int
    licence: str

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, Tensor) or pixels.dtype != torch.float32 or pixels.ndim != 4 or not pixels.numel():
            raise DataError(f"pixels of {self.name} are {checks.shown(pixels)}; give float32 [N, C, H, W], N at least 1.")
        if bad := checks.num_not_finite(pixels):
            raise DataError(
                f"{bad} of {len(pixels)} images of {self.name} hold numbers that are not finite; mend or drop them."
            )
        if float(pixels.abs().max()) > 1:
            raise DataError(f"pixels of {self.name} go beyond [-1, 1]; scale them, e.g. 0..255 by / 127.5 - 1.")
        num = checks.whole(self.num_conditions, "num_conditions", 1, error=DataError)
        labels = checks.class_numbers(self.labels, num, self.name, error=DataError)
        if len(labels) != len(pixels):
            raise DataError(f"{self.name} has {len(labels)} labels for {len(pixels)} images; give one an image.")

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
        """The map after which all pixels together have mean 0 and standard deviation sigma_data. Raises DataError."""
        checks.sigma(sigma_data, "sigma_data", error=DataError)
        deviation = float(self.pixels.double().std())
        if not deviation > 0:
            raise DataError(f"all pixels of {self.name} are the same, so there is nothing to learn; give other images.")
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
    return IMAGE_SETS[checks.choice(name, IMAGE_SETS, "image set", error=DataError)]()
