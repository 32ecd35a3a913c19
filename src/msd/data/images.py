"""Real images: for pretraining a teacher and as the reference of an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from msd import checks
from msd.data.mapped import Mapped
from msd.diffusion.codec import AffineCodec, FoldedCodec
from msd.errors import DataError
from msd.recipe import DIGITS, DataSection


@dataclass(frozen=True)
class ImageSet:
    """Images with labels: `pixels` `[N, C, H, W]`, float32 in [-1, 1] or uint8 in 0..255 (which may be a file mapped into
    memory), `labels` `[N]` int64 in 0..num_conditions-1. Read them by `batch` and `batches`, which give float32.

    Raises DataError for others: a NaN among the pixels would otherwise show only as a training that diverges.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    num_conditions: int
    licence: str
    classes: tuple[str, ...] = ()
    """Name of each condition; their numbers where none are given."""
    is_uniform: bool = False
    """Each class is to be made as often as the others, however often it occurs."""
    known_hash: str = field(default="", repr=False)
    """The hash, where whoever read the pixels has just verified it: it need not be computed again."""
    mapped: Mapped | None = field(default=None, repr=False, compare=False)
    """What the pixels are mapped from, if they are: asked before they are read."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        known = isinstance(pixels, Tensor) and pixels.dtype in (torch.float32, torch.uint8)
        if not known or pixels.ndim != 4 or not pixels.numel():
            raise DataError(
                f"pixels of {self.name} are {checks.shown(pixels)}; give float32 or uint8 [N, C, H, W], N at least 1."
            )
        if pixels.dtype == torch.float32:
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
        object.__setattr__(self, "classes", tuple(self.classes) or tuple(map(str, range(num))))
        if len(self.classes) != num:
            raise DataError(f"{self.name} has {len(self.classes)} names for {num} classes; give one a class.")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    def batch(self, index: Tensor) -> Tensor:
        """The images `index` `[n]`, as float32 `[n, C, H, W]` in [-1, 1]."""
        self.check()
        return as_float(self.pixels[index])

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, at most `size` at a time, as float32 in [-1, 1]."""
        for start in range(0, len(self), size):
            self.check()
            yield as_float(self.pixels[start : start + size])

    def check(self) -> None:
        """Raises DataError when the file that the pixels are mapped from was cut; ask before reading `pixels` itself."""
        if self.mapped is not None:
            self.mapped.check()

    @cached_property
    def prior(self) -> tuple[float, ...]:
        """How often each class is to be made; sums to 1."""
        if self.is_uniform:
            return (1 / self.num_conditions,) * self.num_conditions
        counts = torch.bincount(self.labels, minlength=self.num_conditions).double()
        return tuple((counts / counts.sum()).tolist())

    @cached_property
    def hash(self) -> str:
        """Identity of the set by content, stored beside every number measured against it; names do not count."""
        if self.known_hash:
            return self.known_hash
        digest = hashlib.sha256(hash_header(self.pixel_shape) if self.pixels.dtype == torch.uint8 else b"")
        for start in range(0, len(self), HASHED_AT_A_TIME):
            digest.update(self.pixels[start : start + HASHED_AT_A_TIME].numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of all pixels in [-1, 1]."""
        return _moments(self.pixels)

    def codec(self, sigma_data: float, fold: int = 1) -> AffineCodec:
        """The map after which all pixels together have mean 0 and standard deviation sigma_data, every square of `fold`
        pixels made one place. Raises DataError."""
        checks.sigma(sigma_data, "sigma_data", error=DataError)
        self.check()
        mean, deviation = self.moments
        if not deviation > 0:
            raise DataError(f"all pixels of {self.name} are the same, so there is nothing to learn; give other images.")
        scale = deviation / sigma_data
        return AffineCodec(mean, scale) if fold == 1 else FoldedCodec(mean, scale, fold)


HASHED_AT_A_TIME = 4096


def as_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 as float32 in [-1, 1]; float32 as it is."""
    return pixels if pixels.dtype == torch.float32 else pixels.float() / 127.5 - 1


def hash_header(pixel_shape: tuple[int, ...]) -> bytes:
    """What the bytes of 8-bit pixels do not say themselves: a hash begins with it, then pixels, then int64 labels."""
    return f"uint8 {tuple(pixel_shape)}".encode()


def _moments(pixels: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels in [-1, 1]; of 8-bit ones by counting, as they may not fit into memory."""
    if pixels.dtype == torch.float32:
        return float(pixels.double().mean()), float(pixels.double().std())
    counts = torch.zeros(256, dtype=torch.int64)
    for start in range(0, len(pixels), HASHED_AT_A_TIME):
        counts += torch.bincount(pixels[start : start + HASHED_AT_A_TIME].flatten(), minlength=256)
    values, shares = torch.arange(256).double() / 127.5 - 1, counts.double() / counts.sum()
    mean = float((values * shares).sum())
    return mean, float(((values - mean).square() * shares).sum().sqrt())


def load_digits() -> ImageSet:
    """scikit-learn's copy of the UCI handwritten digits: 1,797 scans of 8x8 pixels in 17 grey levels."""
    from sklearn import datasets

    values, targets = datasets.load_digits(return_X_y=True)
    pixels = torch.from_numpy(values).float().reshape(-1, 1, 8, 8) / 8 - 1
    labels = torch.from_numpy(targets).long()
    return ImageSet(
        "digits", pixels, labels, num_conditions=10, licence="CC BY 4.0 (UCI ML repository, Alpaydin and Kaynak)"
    )


PACKAGED = {DIGITS: load_digits}


def load_images(data: DataSection) -> ImageSet:
    """The images of a recipe's `data`: packaged ones, or the user's own by way of their cache. Raises DataError."""
    checks.instance(data, DataSection, "data", 'give a DataSection, e.g. load_recipe("digits").data', error=DataError)
    if data.is_packaged:
        images = PACKAGED[checks.choice(data.source, PACKAGED, "image set", error=DataError)]()
    else:
        from msd.data.cache import open_images

        images = open_images(data)
    return replace(images, is_uniform=data.prior == "uniform")
