"""SongUNet, the network of DDPM++ and NCSN++, in the form that EDM's checkpoints of CIFAR-10, FFHQ and AFHQ have.

diffusers has no network that computes the same. Song et al. 2021 (arXiv 2011.13456); Karras et al. 2022 (arXiv 2206.00364),
appendix F. Places and ways are named as those of a UNet2DModel: a level is halved at its end on the way in, and doubled at
its end on the way out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, scaled_dot_product_attention, silu

from msd.files import write_json
from msd.networks.adapter import Adapter
from msd.networks.facts import CONFIG, WEIGHTS
from msd.networks.places import place_names
from msd.networks.song_config import KIND, BlockShape, SongConfig, groups_of
from msd.networks.tensors import save_tensors

HALF = 0.5**0.5
"""What every sum of two branches is multiplied by, so that its size stays."""
NORM_EPS = 1e-6
LARGEST_PERIOD = 10_000
FOURIER_SCALE = 16
"""Deviation of the random frequencies."""
QUIET = 1e-5
"""Of the initial weights of what ends a branch, so that a fresh block passes its input on."""
ATTENTION_GAIN = 0.2**0.5


def halved(x: Tensor, num_smoothings: int, padding: int) -> Tensor:
    """Half as many places a side, smoothed before by averages of two; `padding` zeros stand around `x`."""
    for _ in range(num_smoothings):
        x, padding = avg_pool2d(x, 2, 1, padding), 0
    return avg_pool2d(x, 2)


def doubled(x: Tensor, num_smoothings: int, padding: int) -> Tensor:
    """Twice as many places a side, smoothed afterwards."""
    x = interpolate(x, scale_factor=2, mode="nearest")
    for _ in range(num_smoothings):
        x, padding = avg_pool2d(x, 2, 1, padding), 0
    return x


class Block(nn.Module):
    """A residual block under the embedding of noise level and class, and one head of attention after it."""

    def __init__(
        self, shape: BlockShape, embedding: int, dropout: float, resample: Callable[[Tensor], Tensor] | None = None
    ):
        super().__init__()
        ins, outs, attends = shape
        self._resample = resample
        self.norm0, self.conv0 = _norm(ins), nn.Conv2d(ins, outs, 3, padding=1)
        self.affine = nn.Linear(embedding, outs)
        self.norm1, self.conv1 = _norm(outs), nn.Conv2d(outs, outs, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(ins, outs, 1) if ins != outs or resample else None
        self.norm2 = _norm(outs) if attends else None
        self.qkv = nn.Conv2d(outs, 3 * outs, 1) if attends else None
        self.proj = nn.Conv2d(outs, outs, 1) if attends else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        hidden = silu(self.norm0(x))
        if self._resample is not None:
            x, hidden = self._resample(x), self._resample(hidden)
        hidden = self.conv0(hidden) + self.affine(embedding)[:, :, None, None]
        hidden = self.conv1(self.dropout(silu(self.norm1(hidden))))
        x = (hidden + (x if self.skip is None else self.skip(x))) * HALF
        return x if self.norm2 is None else (x + self._attended(self.norm2(x))) * HALF

    def _attended(self, x: Tensor) -> Tensor:
        assert self.qkv is not None
        assert self.proj is not None
        num, channels, height, width = x.shape
        # Of the convolution's channels, every third is query, key or value; here [3, N, head, place, channel].
        found = self.qkv(x).reshape(num, 1, channels, 3, height * width).permute(3, 0, 1, 4, 2).contiguous()
        answer = scaled_dot_product_attention(*found.unbind(0))
        return self.proj(answer.transpose(2, 3).reshape(num, channels, height, width).contiguous())


class WayIn(nn.Module):
    """A level on the way in: its blocks, then what halves it."""

    def __init__(self, config: SongConfig, level: int):
        super().__init__()
        self._num_smoothings, padding = config.num_smoothings, config.num_smoothings // 2
        of_block = config.embedding_channels, config.dropout
        self.blocks = nn.ModuleList(Block(shape, *of_block) for shape in config.way_in(level))
        self.halving = self.aside = None
        if level < len(config.widths) - 1:
            resample = partial(halved, num_smoothings=config.num_smoothings, padding=padding)
            self.halving = Block(BlockShape(config.widths[level], config.widths[level]), *of_block, resample)
        if (channels := config.aside(level)) is not None:
            # Its zeros are those of convolution and smoothing together: the smoothing, which follows, adds none.
            self.aside = nn.Conv2d(*channels, 3, padding=1 + padding)

    def forward(self, x: Tensor, aside: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The level's features, what goes on beside them, and what skips over to the way out."""
        skips = []
        for block in self.blocks:
            x = block(x, embedding)
            skips.append(x)
        if self.halving is not None:
            x = self.halving(x, embedding)
            if self.aside is not None:
                x = aside = (x + halved(self.aside(aside), self._num_smoothings, 0)) * HALF
            skips.append(x)
        return x, aside, skips


class Middle(nn.Module):
    """Two blocks at the coarsest level, attention between them."""

    def __init__(self, config: SongConfig):
        super().__init__()
        width, of_block = config.widths[-1], (config.embedding_channels, config.dropout)
        self.blocks = nn.ModuleList(Block(BlockShape(width, width, attends), *of_block) for attends in (True, False))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class WayOut(nn.Module):
    """A level on the way out: its blocks, each of which takes the last of the skips, then what doubles it."""

    def __init__(self, config: SongConfig, level: int):
        super().__init__()
        of_block, width = (config.embedding_channels, config.dropout), config.widths[level]
        self.blocks = nn.ModuleList(Block(shape, *of_block) for shape in config.way_out(level))
        resample = partial(doubled, num_smoothings=config.num_smoothings, padding=config.num_smoothings // 2)
        self.doubling = Block(BlockShape(width, width), *of_block, resample) if level else None

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], 1), embedding)
        return x if self.doubling is None else self.doubling(x, embedding)


class SongUNet(nn.Module):
    """The raw network, randomly initialised: from `x` `[N, C, S, S]`, noise levels and labels `[N]` to `[N, C', S, S]`."""

    def __init__(self, config: SongConfig):
        super().__init__()
        self.config = config
        noise, embedding, levels = config.noise_channels, config.embedding_channels, range(len(config.widths))
        self.frequencies = None
        if config.embedding_type == "fourier":
            self.frequencies = nn.Parameter(torch.randn(noise // 2) * FOURIER_SCALE, requires_grad=False)
        self.class_embedding = nn.Embedding(config.label_dim, noise)
        self.embed0, self.embed1 = nn.Linear(noise, embedding), nn.Linear(embedding, embedding)
        self.conv_in = nn.Conv2d(config.in_channels, config.model_channels, 3, padding=1)
        self.down = nn.ModuleList(WayIn(config, level) for level in levels)
        self.middle = Middle(config)
        self.up = nn.ModuleList(WayOut(config, level) for level in reversed(levels))
        self.norm_out = _norm(config.widths[0])
        self.conv_out = nn.Conv2d(config.widths[0], config.out_channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        gains = {"conv1": QUIET, "proj": QUIET, "conv_out": QUIET, "qkv": ATTENTION_GAIN}
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                # A class is a row of the embedding, in place of a one-hot row times the square root of their number.
                own = self.config.label_dim**0.5 if isinstance(module, nn.Embedding) else 1.0
                nn.init.xavier_uniform_(module.weight, gains.get(name.rpartition(".")[2], own))
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor) -> Tensor:
        embedding = silu(self.embed0(self._waves(noise_level) + self.class_embedding(labels)))
        embedding = silu(self.embed1(embedding))
        aside, x = x, self.conv_in(x)
        skips = [x]
        for level in self.down:
            x, aside, more = level(x, aside, embedding)
            skips += more
        x = self.middle(x, embedding)
        for level in self.up:
            x = level(x, skips, embedding)
        return self.conv_out(silu(self.norm_out(x)))

    def _waves(self, noise_level: Tensor) -> Tensor:
        """Sines and cosines of the noise level `[N]`, `[N, noise_channels]`."""
        if self.frequencies is not None:
            angles = noise_level[:, None] * (2 * math.pi * self.frequencies)
        else:
            num = self.config.noise_channels // 2
            exponents = torch.arange(num, device=noise_level.device, dtype=torch.float32) / (num - 1)
            angles = noise_level[:, None] * float(LARGEST_PERIOD) ** -exponents
        return torch.cat([angles.sin(), angles.cos()], 1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups_of(channels), channels, NORM_EPS)


class SongAdapter(Adapter):
    """A SongUNet with class labels."""

    kind = KIND
    model: SongUNet

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        return self.model(x, noise_level, condition)

    def places(self) -> dict[str, nn.Module]:
        """Named as `networks.places` has it."""
        model = self.model
        return dict(zip(place_names(len(model.down), has_mid=True), [*model.down, model.middle, *model.up], strict=True))

    def config(self) -> dict[str, Any]:
        return self.model.config.to_json()

    def save(self, folder: str) -> None:
        write_json(Path(folder) / CONFIG, self.config())
        save_tensors(self.model.state_dict(), Path(folder) / WEIGHTS)


def build_song(config: dict[str, Any]) -> SongAdapter:
    """A randomly initialised SongUNet from its own keyword arguments. Raises WeightsError for what is none."""
    return SongAdapter(SongUNet(SongConfig.read(config)))
