"""The Inception network that published FIDs are measured with, filled from a file of weights that the user gives.

The architecture is Inception-v3 (Szegedy et al. 2015) as TensorFlow's graph of 2015-12-05 has it: averages leave out the
border's zeros, the last block takes the largest value where the one before it averages, 1,008 classes, batch norm's eps
1e-3. Features are the 2,048 averages of its last places. Tensors are named as in pytorch-fid's and torch-fidelity's file
`pt_inception-2015-12-05-6726825d.pth`; neither library is needed, nor run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE, NUM_FEATURES, NUM_CLASSES = 299, 2048, 1008
AT_A_TIME = 8
"""Images that go through the network together on a CPU."""


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, then batch norm and ReLU. Padded so that it keeps the places, unless it has a stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    is_padded: bool = True


Step = Conv | tuple[Conv, Conv] | Callable[[Tensor], Tensor]
"""A convolution, two of them side by side on the same places, or a pool."""


def average(places: Tensor) -> Tensor:
    """Of the 3x3 places around each, without those beyond the border."""
    return avg_pool2d(places, 3, stride=1, padding=1, count_include_pad=False)


def largest(places: Tensor) -> Tensor:
    return max_pool2d(places, 3, stride=1, padding=1)


def halved(places: Tensor) -> Tensor:
    return max_pool2d(places, 3, stride=2)


def _down(name: str, channels: int) -> Conv:
    return Conv(name, channels, (3, 3), stride=2, is_padded=False)


def _a(pooled: int) -> tuple[tuple[Step, ...], ...]:
    double = "branch3x3dbl"
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (Conv(f"{double}_1", 64), Conv(f"{double}_2", 96, (3, 3)), Conv(f"{double}_3", 96, (3, 3))),
        (average, Conv("branch_pool", pooled)),
    )


def _c(inner: int) -> tuple[tuple[Step, ...], ...]:
    wide, high, double = (1, 7), (7, 1), "branch7x7dbl"
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, wide), Conv("branch7x7_3", 192, high)),
        (
            Conv(f"{double}_1", inner),
            Conv(f"{double}_2", inner, high),
            Conv(f"{double}_3", inner, wide),
            Conv(f"{double}_4", inner, high),
            Conv(f"{double}_5", 192, wide),
        ),
        (average, Conv("branch_pool", 192)),
    )


def _e(pool: Callable[[Tensor], Tensor]) -> tuple[tuple[Step, ...], ...]:
    wide, high, double = (1, 3), (3, 1), "branch3x3dbl"
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), (Conv("branch3x3_2a", 384, wide), Conv("branch3x3_2b", 384, high))),
        (
            Conv(f"{double}_1", 448),
            Conv(f"{double}_2", 384, (3, 3)),
            (Conv(f"{double}_3a", 384, wide), Conv(f"{double}_3b", 384, high)),
        ),
        (pool, Conv("branch_pool", 192)),
    )


_B: tuple[tuple[Step, ...], ...] = (
    (_down("branch3x3", 384),),
    (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), _down("branch3x3dbl_3", 96)),
    (halved,),
)
_D: tuple[tuple[Step, ...], ...] = (
    (Conv("branch3x3_1", 192), _down("branch3x3_2", 320)),
    (
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        _down("branch7x7x3_4", 192),
    ),
    (halved,),
)
STEM: tuple[Step, ...] = (
    _down("Conv2d_1a_3x3", 32),
    Conv("Conv2d_2a_3x3", 32, (3, 3), is_padded=False),
    Conv("Conv2d_2b_3x3", 64, (3, 3)),
    halved,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, (3, 3), is_padded=False),
    halved,
)
BLOCKS: dict[str, tuple[tuple[Step, ...], ...]] = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _B,
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _D,
    "Mixed_7b": _e(average),
    "Mixed_7c": _e(largest),
}
"""Branches of each block; what they give lies side by side in the channels."""


class ConvNorm(nn.Module):
    """Named as in the file of weights."""

    def __init__(self, before: int, step: Conv):
        super().__init__()
        high, wide = step.kernel
        padding = (high // 2, wide // 2) if step.is_padded else 0
        self.conv = nn.Conv2d(before, step.channels, step.kernel, step.stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(step.channels, eps=1e-3)

    def forward(self, places: Tensor) -> Tensor:
        return self.bn(self.conv(places)).relu_()

    def fuse(self) -> None:
        """Take the norm into the convolution: the same values in less time."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


def _add(module: nn.Module, branch: tuple[Step, ...], channels: int) -> int:
    """Give `module` the branch's layers; returns the channels that come out of `channels`."""
    for step in branch:
        convs = step if isinstance(step, tuple) else (step,) if isinstance(step, Conv) else ()
        for conv in convs:
            module.add_module(conv.name, ConvNorm(channels, conv))
        channels = sum(conv.channels for conv in convs) or channels
    return channels


def _through(module: nn.Module, branch: tuple[Step, ...], places: Tensor) -> Tensor:
    for step in branch:
        if isinstance(step, Conv):
            places = module.get_submodule(step.name)(places)
        elif isinstance(step, tuple):
            places = torch.cat([module.get_submodule(conv.name)(places) for conv in step], 1)
        else:
            places = step(places)
    return places


class Mixed(nn.Module):
    """Branches on the same places."""

    def __init__(self, branches: tuple[tuple[Step, ...], ...], channels: int):
        super().__init__()
        self.branches = branches
        self.channels = sum(_add(self, branch, channels) for branch in branches)

    def forward(self, places: Tensor) -> Tensor:
        return torch.cat([_through(self, branch, places) for branch in self.branches], 1)


class Inception(nn.Module):
    """Takes images of any size, grey or in colour; knows ImageNet's classes, so it gives no scores for the images' own."""

    num_features = NUM_FEATURES

    def __init__(self) -> None:
        super().__init__()
        channels = _add(self, STEM, 3)
        for name, branches in BLOCKS.items():
            block = Mixed(branches, channels)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(channels, NUM_CLASSES)  # in the file; features end before it

    def forward(self, pixels: Tensor) -> tuple[Tensor, None]:
        """Features `[N, 2048]` of `pixels` `[N, 1 or 3, H, W]` in [-1, 1], rounded to 8 bits first; and None, for scores."""
        return self.pooled(prepared(pixels)), None

    def pooled(self, pixels: Tensor) -> Tensor:
        """Features `[N, 2048]` of `[N, 3, 299, 299]` as `prepared` gives them."""
        places = _through(self, STEM, pixels.contiguous(memory_format=torch.channels_last))
        for name in BLOCKS:
            places = self.get_submodule(name)(places)
        return places.mean((2, 3))


def prepared(pixels: Tensor) -> Tensor:
    """Pixels `[N, 1 or 3, H, W]` in [-1, 1] as `[N, 3, 299, 299]`, in the published order: 8 bits, three channels, size,
    (value - 128) / 128."""
    values = (pixels * 127.5 + 128).clamp(0, 255).floor()  # as a file of 8 bits would hold them, in EDM's rounding
    if values.shape[1] == 1:
        values = values.expand(-1, 3, -1, -1)
    high, wide = (resizing(side, SIZE).to(values) for side in values.shape[-2:])
    return (high @ values @ wide.T - 128) / 128


def resizing(before: int, after: int) -> Tensor:
    """How TensorFlow 1 brings `before` places to `after`, bilinearly, as a matrix `[after, before]`: place i lies at
    i * before / after between its two neighbours (no half pixels, no look at the corners, nothing smoothed before)."""
    position = torch.arange(after, dtype=torch.float32) * (before / after)
    low = position.long().clamp_max(before - 1)
    share = position - low
    found, rows = torch.zeros(after, before), torch.arange(after)
    found[rows, low] = 1 - share
    found[rows, (low + 1).clamp_max(before - 1)] += share
    return found
