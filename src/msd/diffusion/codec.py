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


CODECS: dict[str, type] = {"affine": AffineCodec}
"""How each kind is rebuilt from its saved fields; a VAE is a line here."""
