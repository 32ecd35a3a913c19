"""Codecs: from pixels to the space that a denoiser works in, and back. Saved by kind in the denoiser's spec.

No torch is imported here, so that shapes can be read off a saved spec at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from msd import checks
from msd.checks import MAX_SIGMA, MIN_SIGMA
from msd.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Codec(Protocol):
    """A frozen dataclass of plain values. Noise and samples share a shape, which need not be that of the pixels."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def encode(self, pixels: Tensor) -> Tensor:
        """Samples `[N, *noise_shape]` of pixels `[N, *pixel_shape]` in [-1, 1]."""
        ...

    def decode(self, samples: Tensor) -> Tensor:
        """Pixels `[N, *pixel_shape]` in [-1, 1] of samples `[N, *noise_shape]`."""
        ...

    def pixel_shape(self, noise_shape: Shape) -> Shape:
        """The shape of one image whose noise has shape `noise_shape`."""
        ...

    def noise_shape(self, pixel_shape: Shape) -> Shape:
        """The shape of one sample's noise whose image has shape `pixel_shape`."""
        ...


@dataclass(frozen=True)
class AffineCodec:
    """Pixels shifted and scaled, so that in the model's space the data has mean 0 and deviation sigma_data."""

    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises DataError for numbers that give no pixels back; `scale` is positive."""
        checks.number(self.shift, "shift of the codec", -MAX_SIGMA, MAX_SIGMA, error=DataError)
        checks.number(self.scale, "scale of the codec", MIN_SIGMA, MAX_SIGMA, error=DataError)

    def encode(self, pixels: Tensor) -> Tensor:
        return (pixels - self.shift) / self.scale

    def decode(self, samples: Tensor) -> Tensor:
        """Model space to pixels, clamped to [-1, 1]."""
        return (samples * self.scale + self.shift).clamp(-1, 1)

    def pixel_shape(self, noise_shape: Shape) -> Shape:
        return noise_shape

    def noise_shape(self, pixel_shape: Shape) -> Shape:
        return pixel_shape


@dataclass(frozen=True)
class FoldedCodec(AffineCodec):
    """`AffineCodec`, and every square of `fold` x `fold` pixels the channels of one place.

    The values and their noise are the same, only their places differ; a network sees fewer places, and takes less time.
    """

    fold: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self.fold, "fold of the codec", 1, 64, error=DataError)

    def encode(self, pixels: Tensor) -> Tensor:
        """Samples `[N, C fold^2, H / fold, W / fold]` of pixels `[N, C, H, W]`."""
        from torch.nn.functional import pixel_unshuffle

        return pixel_unshuffle(super().encode(pixels), self.fold)

    def decode(self, samples: Tensor) -> Tensor:
        from torch.nn.functional import pixel_shuffle

        return super().decode(pixel_shuffle(samples, self.fold))

    def pixel_shape(self, noise_shape: Shape) -> Shape:
        channels, height, width = noise_shape
        return channels // self.fold**2, height * self.fold, width * self.fold

    def noise_shape(self, pixel_shape: Shape) -> Shape:
        """Raises DataError for a size that `fold` does not divide."""
        channels, height, width = pixel_shape
        if height % self.fold or width % self.fold:
            raise DataError(
                f"images of {height}x{width} pixels cannot be folded by {self.fold}; set network.fold=1, or data.size."
            )
        return channels * self.fold**2, height // self.fold, width // self.fold
