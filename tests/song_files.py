"""SongUNet (DDPM++, NCSN++) as papers describe it, with the names that EDM's files have, written apart from the package's.

Slow and plain on purpose: resampling is a product with matrices made from the filter's taps, norms and attention are sums
that are spelt out, and levels are a recursion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from edm_files import EDMPrecond, Linear, Persistent

DDPMPP: dict[str, Any] = {}
NCSNPP: dict[str, Any] = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
CIFAR: dict[str, Any] = {
    "size": 32,
    "channels": 3,
    "channel_mult": [2, 2, 2],
    "num_blocks": 4,
    "model_channels": 128,
    "attn_resolutions": [16],
    "augment_dim": 9,
}
"""As EDM trained them on CIFAR-10."""


def halving(taps: Sequence[int], size: int, padding: int) -> Tensor:
    """The matrix `[half, size]` that smooths a line of places by the taps and keeps every other one."""
    places = (size + 2 * padding - len(taps)) // 2 + 1
    matrix = torch.zeros(places, size, dtype=torch.float64)
    for row in range(places):
        for number, tap in enumerate(taps):
            if 0 <= (column := 2 * row - padding + number) < size:
                matrix[row, column] += tap / sum(taps)
    return matrix


def both_ways(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ai,bj,ncij->ncab", matrix.to(x), matrix.to(x), x)


class Layer(Persistent):
    """A convolution, with halving or doubling before it; `fused` is after it instead, by the same places."""

    def __init__(self, ins: int, outs: int, kernel: int, taps: Sequence[int] = (), way: str = "", fused: bool = False):
        super().__init__()
        self.noted(in_channels=ins, out_channels=outs, kernel=kernel, up=way == "up", down=way == "down")
        self._taps, self._way, self._fused = tuple(taps), way, fused
        self.weight = nn.Parameter(torch.randn(outs, ins, kernel, kernel) / (ins * kernel**2) ** 0.5)
        self.bias = nn.Parameter(torch.randn(outs) * 0.1)
        line = torch.tensor(taps, dtype=torch.float32)
        self.register_buffer("resample_filter", (line.outer(line) / line.sum() ** 2)[None, None] if way else None)

    def forward(self, x: Tensor) -> Tensor:
        around, own = len(self._taps) // 2 - 1 if self._way else 0, self.weight.shape[-1] // 2
        if self._fused:
            x = conv2d(x, self.weight, self.bias, padding=own + around)
            return both_ways(halving(self._taps, x.shape[-1], 0), x)
        if self._way == "down":
            x = both_ways(halving(self._taps, x.shape[-1], around), x)
        if self._way == "up":
            x = both_ways(2 * halving(self._taps, 2 * x.shape[-1], around).T, x)
        return conv2d(x, self.weight, self.bias, padding=own)


class Norm(Persistent):
    def __init__(self, channels: int):
        super().__init__()
        self.noted(num_channels=channels, eps=1e-6)
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(channels))
        self.bias = nn.Parameter(0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        groups = min(32, x.shape[1] // 4)
        apart = x.reshape(len(x), groups, -1)
        centred = apart - apart.mean(2, keepdim=True)
        scaled = centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()
        return scaled.reshape(x.shape) * self.weight[:, None, None] + self.bias[:, None, None]


class UNetBlock(Persistent):
    def __init__(self, ins: int, outs: int, emb: int, taps: Sequence[int], way: str = "", attention: bool = False):
        super().__init__()
        self.noted(in_channels=ins, out_channels=outs, emb_channels=emb, up=way == "up", down=way == "down")
        self.norm0, self.conv0 = Norm(ins), Layer(ins, outs, 3, taps, way)
        self.affine, self.norm1, self.conv1 = Linear(emb, outs), Norm(outs), Layer(outs, outs, 3)
        self.skip = Layer(ins, outs, 1, taps, way) if way or ins != outs else None
        if attention:
            self.norm2, self.qkv, self.proj = Norm(outs), Layer(outs, 3 * outs, 1), Layer(outs, outs, 1)
        self._attends = attention

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        inner = self.conv0(silu(self.norm0(x)))
        inner = self.conv1(silu(self.norm1(inner + self.affine(emb).reshape(*inner.shape[:2], 1, 1))))
        x = ((x if self.skip is None else self.skip(x)) + inner) / math.sqrt(2)
        if not self._attends:
            return x
        found = self.qkv(self.norm2(x)).flatten(2)
        query, key, value = found[:, 0::3], found[:, 1::3], found[:, 2::3]
        likeness = torch.einsum("nci,ncj->nij", query, key) / math.sqrt(x.shape[1])
        weights = (likeness - likeness.amax(2, keepdim=True)).exp()
        weights = weights / weights.sum(2, keepdim=True)
        return (x + self.proj(torch.einsum("nij,ncj->nci", weights, value).reshape(x.shape))) / math.sqrt(2)


class Waves(Persistent):
    def __init__(self, num: int, kind: str):
        super().__init__()
        self.noted(num_channels=num)
        self._num = num
        self.register_buffer("freqs", torch.randn(num // 2) * 16 if kind == "fourier" else None)

    def forward(self, level: Tensor) -> Tensor:
        half, rows, given = self._num // 2, [], level.dtype
        level = level.float()  # angles of hundreds of radians, which a network in float32 rounds: so does this
        for number in range(half):
            if self.freqs is None:
                rows.append(level * 10_000 ** (-number / (half - 1)))
            else:
                rows.append(level * (2 * math.pi * self.freqs[number].float()))
        angles = torch.stack(rows, 1).to(given)
        return torch.cat([angles.sin(), angles.cos()], 1)


class SongUNet(Persistent):
    def __init__(
        self,
        size: int,
        channels: int,
        labels: int,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        augment_dim: int = 0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ):
        super().__init__()
        self.noted(
            img_resolution=size,
            in_channels=channels,
            out_channels=channels,
            label_dim=labels,
            augment_dim=augment_dim,
            model_channels=model_channels,
            channel_mult=list(channel_mult),
            channel_mult_emb=4,
            num_blocks=num_blocks,
            attn_resolutions=list(attn_resolutions),
            dropout=0.13,
            label_dropout=0,
            embedding_type=embedding_type,
            channel_mult_noise=channel_mult_noise,
            encoder_type=encoder_type,
            decoder_type="standard",
            resample_filter=list(resample_filter),
        )
        taps, emb, noise = list(resample_filter), model_channels * 4, model_channels * channel_mult_noise
        self._size, self._labels, self._num_levels, self._num_blocks = size, labels, len(channel_mult), num_blocks
        self.map_noise = Waves(noise, embedding_type)
        self.map_label = Linear(labels, noise)
        self.map_augment = Linear(augment_dim, noise, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb), Linear(emb, emb)
        widths = [model_channels * mult for mult in channel_mult]
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.enc[f"{size}x{size}_conv"] = Layer(channels, model_channels, 3)
        left = [model_channels]
        for level, width in enumerate(widths):
            at, before = f"{size >> level}x{size >> level}", left[-1]
            if level:
                self.enc[f"{at}_down"] = UNetBlock(before, before, emb, taps, "down")
                if encoder_type == "residual":
                    beside = widths[level - 2] if level > 1 else channels
                    self.enc[f"{at}_aux_residual"] = Layer(beside, before, 3, taps, "down", fused=True)
                left.append(before)
            for number in range(num_blocks):
                attends = size >> level in attn_resolutions
                self.enc[f"{at}_block{number}"] = UNetBlock(left[-1], width, emb, taps, attention=attends)
                left.append(width)
        before = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            at = f"{size >> level}x{size >> level}"
            if level == len(widths) - 1:
                self.dec[f"{at}_in0"] = UNetBlock(before, before, emb, taps, attention=True)
                self.dec[f"{at}_in1"] = UNetBlock(before, before, emb, taps)
            else:
                self.dec[f"{at}_up"] = UNetBlock(before, before, emb, taps, "up")
            for number in range(num_blocks + 1):
                attends = number == num_blocks and size >> level in attn_resolutions
                self.dec[f"{at}_block{number}"] = UNetBlock(before + left.pop(), width, emb, taps, attention=attends)
                before = width
        self.dec[f"{size}x{size}_aux_norm"], self.dec[f"{size}x{size}_aux_conv"] = Norm(before), Layer(before, channels, 3)

    def forward(self, x: Tensor, level: Tensor, one_hot: Tensor) -> Tensor:
        emb = self.map_noise(level) + self.map_label(one_hot * math.sqrt(self._labels))
        emb = silu(self.map_layer1(silu(self.map_layer0(emb))))
        left = [self.enc[f"{self._size}x{self._size}_conv"](x)]
        x = self._level(0, x, left, emb)
        at = f"{self._size}x{self._size}"
        return self.dec[f"{at}_aux_conv"](silu(self.dec[f"{at}_aux_norm"](x)))

    def _level(self, level: int, beside: Tensor, left: list[Tensor], emb: Tensor) -> Tensor:
        """What this level and all below it make of what was left last, as large as this level's places."""
        at = f"{self._size >> level}x{self._size >> level}"
        for number in range(self._num_blocks):
            left.append(self.enc[f"{at}_block{number}"](left[-1], emb))
        if level == self._num_levels - 1:
            x = self.dec[f"{at}_in1"](self.dec[f"{at}_in0"](left[-1], emb), emb)
        else:
            below = f"{self._size >> level + 1}x{self._size >> level + 1}"
            left.append(self.enc[f"{below}_down"](left[-1], emb))
            if f"{below}_aux_residual" in self.enc:
                beside = left[-1] = (left[-1] + self.enc[f"{below}_aux_residual"](beside)) / math.sqrt(2)
            x = self.dec[f"{at}_up"](self._level(level + 1, beside, left, emb), emb)
        for number in range(self._num_blocks + 1):
            x = self.dec[f"{at}_block{number}"](torch.cat([x, left.pop()], 1), emb)
        return x


def song_network(seed: int = 0, *, size: int = 8, channels: int = 1, labels: int = 10, **arguments: Any) -> EDMPrecond:
    """A small one with random weights, none of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        values = {"model_channels": 8, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)} | arguments
        return EDMPrecond(SongUNet(size, channels, labels, **values), size, channels, labels).eval()
