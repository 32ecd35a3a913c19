"""The codec of latent diffusion: an AutoencoderKL of diffusers, kept beside the networks that work in its space.

A codec is plain values, which a denoiser's description holds; which autoencoder it is says a digest of that one's content.
Where it lies is told when a denoiser's folder is loaded (`offer`), and it is read when something is encoded or decoded.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd import checks
from msd.checks import MAX_SIGMA, MIN_SIGMA
from msd.diffusion.codec import Shape
from msd.errors import DataError, WeightsError
from msd.files import link_or_copy, sha256_json, write_json
from msd.networks.facts import AUTOENCODER, AUTOENCODER_FILES, CONFIG, REMEDY, WEIGHTS
from msd.networks.tensors import load_tensors, save_tensors
from msd.reading import Kind, read_object, reason

BATCH = 16
"""Images that are decoded or encoded at a time: at 256x256 each takes hundreds of MiB on the way."""
_KIND = Kind("an autoencoder's configuration", REMEDY, WeightsError)


@dataclass(frozen=True)
class VAECodec:
    """Pixels as the latents of an AutoencoderKL, scaled as its diffusion models want them (Rombach et al. 2022)."""

    sha256: str
    """Digest of the autoencoder's configuration and weights."""
    channels: int
    """Of a latent."""
    factor: int
    """Pixels a side of one latent place."""
    scale: float
    """What latents are multiplied by (diffusers' `scaling_factor`), after `shift` is taken off."""
    shift: float = 0.0
    pixels: int = 3
    """Channels of a pixel."""

    def __post_init__(self) -> None:
        """Raises DataError for numbers that give no pixels back."""
        if not isinstance(self.sha256, str) or not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise DataError(f"sha256 of the codec is {checks.shown(self.sha256)}, not a digest; {REMEDY}.")
        for name in ("channels", "factor", "pixels"):
            checks.whole(getattr(self, name), f"{name} of the codec", 1, 4096, error=DataError)
        checks.number(self.scale, "scale of the codec", MIN_SIGMA, MAX_SIGMA, error=DataError)
        checks.number(self.shift, "shift of the codec", -MAX_SIGMA, MAX_SIGMA, error=DataError)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents `[N, C, H / factor, W / factor]` of pixels `[N, P, H, W]`: the mean of what the encoder says."""
        model = _model(self.sha256, pixels.device)
        means = [model.encode(some).latent_dist.mode() for some in pixels.float().split(BATCH)]
        return (torch.cat(means) - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, samples: Tensor) -> Tensor:
        """Pixels of latents, clamped to [-1, 1]."""
        model = _model(self.sha256, samples.device)
        latents = samples.float() / self.scale + self.shift
        return torch.cat([model.decode(some, return_dict=False)[0] for some in latents.split(BATCH)]).clamp(-1, 1)

    def pixel_shape(self, noise_shape: Shape) -> Shape:
        _, height, width = noise_shape
        return self.pixels, height * self.factor, width * self.factor

    def noise_shape(self, pixel_shape: Shape) -> Shape:
        """Raises DataError for a size that `factor` does not divide."""
        _, height, width = pixel_shape
        if height % self.factor or width % self.factor:
            raise DataError(f"images of {height}x{width} pixels are no multiple of {self.factor} a side; set data.size.")
        return self.channels, height // self.factor, width // self.factor


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """What one is made of: the keyword arguments of its AutoencoderKL, and its weights in float32."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def digest(self) -> str:
        """SHA-256 of all of it, whatever file it came from."""
        content = hashlib.sha256(sha256_json(dict(self.config)).encode())
        for name in sorted(self.tensors):
            value = self.tensors[name].detach().float().contiguous()
            content.update(f"{name} {tuple(value.shape)}".encode())
            content.update(value.numpy().tobytes())
        return content.hexdigest()

    def model(self, source: str) -> Any:
        """The module, frozen and in evaluation mode. Raises WeightsError, naming `source`, for weights that do not fit."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        try:
            with torch.random.fork_rng(devices=[]):
                model = AutoencoderKL(**self.config)
            model.load_state_dict(dict(self.tensors), strict=True)
        except Exception as error:  # whatever diffusers makes of values that nobody has foreseen
            raise WeightsError(f"{source} describes no autoencoder that can be built ({reason(error)}).") from error
        return model.eval().requires_grad_(False)


_known: dict[str, Path | Autoencoder] = {}
_lock = threading.Lock()


def offer(sha256: str, source: Path | Autoencoder) -> None:
    """Say where the autoencoder of that digest is: in the folder that holds `vae`, or here."""
    with _lock:
        _known[sha256] = source


def save_autoencoder(sha256: str, folder: Path) -> None:
    """Put the autoencoder of that digest beside the denoiser in `folder`; files are shared where the disk can.

    Raises WeightsError where it is not known.
    """
    source, target = _source(sha256), folder / AUTOENCODER
    target.mkdir()
    if isinstance(source, Path):
        for name in AUTOENCODER_FILES:
            link_or_copy(source / name, folder / name)
        return
    write_json(target / CONFIG, dict(source.config))
    save_tensors({name: value.float() for name, value in source.tensors.items()}, target / WEIGHTS)


def read_autoencoder(folder: Path) -> Autoencoder:
    """The one in a folder that `save_autoencoder` wrote. Raises WeightsError."""
    config = read_object(folder / AUTOENCODER / CONFIG, dict[str, Any], _KIND)
    return Autoencoder(config, load_tensors(folder / AUTOENCODER / WEIGHTS, REMEDY))


def _source(sha256: str) -> Path | Autoencoder:
    with _lock:
        source = _known.get(sha256)
    if source is None:
        raise WeightsError(f"the autoencoder {sha256[:16]}... is nowhere; load the denoiser's folder that holds it.")
    return source


@lru_cache(maxsize=4)
def _model(sha256: str, device: torch.device) -> Any:
    source = _source(sha256)
    found = read_autoencoder(source) if isinstance(source, Path) else source
    if found.digest() != sha256:
        raise WeightsError(f"{source}/{AUTOENCODER} is damaged: it is not the recorded autoencoder; {REMEDY}.")
    return found.model(str(source)).to(device)
