"""Checkpoints in EDM's own layout, written by tests: networks that compute what papers describe, pickled as live objects.

The modules carry the names that EDM's files have for them, so that what reads such a file is tested against networks that
it did not make.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, group_norm, interpolate, silu

PERSISTENCE = "torch_utils.persistence"
SOURCE = "raise SystemExit('the source text in a checkpoint was run')"


class Persistent(nn.Module):
    """Base of what EDM pickles by a function of its own, with arguments and source text."""

    _init_args: tuple[Any, ...] = ()
    _init_kwargs: dict[str, Any]

    def noted(self, **arguments: Any) -> None:
        self._init_args, self._init_kwargs = (), arguments


class Linear(Persistent):
    def __init__(self, ins: int, outs: int, bias: bool = True):
        super().__init__()
        self.noted(in_features=ins, out_features=outs, bias=bias, init_weight=np.sqrt(1 / 3))
        self.weight = nn.Parameter(torch.randn(outs, ins) / ins**0.5)
        self.bias = nn.Parameter(torch.randn(outs) * 0.1) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + (0 if self.bias is None else self.bias)


class Conv2d(Persistent):
    def __init__(self, ins: int, outs: int, kernel: int, up: bool = False, down: bool = False):
        super().__init__()
        self.noted(in_channels=ins, out_channels=outs, kernel=kernel, up=up, down=down, init_weight=np.float64(0.5))
        self.up, self.down = up, down
        self.weight = nn.Parameter(torch.randn(outs, ins, kernel, kernel) / (ins * kernel**2) ** 0.5) if kernel else None
        self.bias = nn.Parameter(torch.randn(outs) * 0.1) if kernel else None
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25) if up or down else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = interpolate(x, scale_factor=2, mode="nearest")
        if self.down:
            x = avg_pool2d(x, 2)
        return x if self.weight is None else conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class GroupNorm(Persistent):
    def __init__(self, channels: int):
        super().__init__()
        self.noted(num_channels=channels)
        self.num_groups, self.eps = min(32, channels // 4), 1e-5
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(channels))
        self.bias = nn.Parameter(0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class PositionalEmbedding(Persistent):
    def __init__(self, channels: int):
        super().__init__()
        self.noted(num_channels=channels)
        self.num_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.num_channels // 2
        angles = x[:, None] * 10000 ** -(torch.arange(half) / half)
        return torch.cat([angles.cos(), angles.sin()], 1)


class UNetBlock(Persistent):
    def __init__(self, ins: int, outs: int, emb: int, up: bool = False, down: bool = False, attention: bool = False):
        super().__init__()
        self.noted(in_channels=ins, out_channels=outs, emb_channels=emb, up=up, down=down, attention=attention)
        self.in_channels, self.out_channels = ins, outs
        self.num_heads = outs // 64 if attention else 0
        self.norm0, self.conv0 = GroupNorm(ins), Conv2d(ins, outs, 3, up, down)
        self.affine = Linear(emb, 2 * outs)
        self.norm1, self.conv1 = GroupNorm(outs), Conv2d(outs, outs, 3)
        self.skip = Conv2d(ins, outs, 1 if ins != outs else 0, up, down) if ins != outs or up or down else None
        if attention:
            self.norm2, self.qkv, self.proj = GroupNorm(outs), Conv2d(outs, 3 * outs, 1), Conv2d(outs, outs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        hidden = self.conv0(silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, 1)
        hidden = self.conv1(silu(self.norm1(hidden) * (1 + scale) + shift))
        x = hidden + (x if self.skip is None else self.skip(x))
        if not self.num_heads:
            return x
        # [image and head, channel of the head, query or key or value, place]
        query, key, value = self.qkv(self.norm2(x)).reshape(len(x) * self.num_heads, 64, 3, -1).unbind(2)
        weights = (query.transpose(1, 2) @ key / 8).softmax(-1)
        return x + self.proj((value @ weights.transpose(1, 2)).reshape(x.shape))


class DhariwalUNet(Persistent):
    """The ADM U-Net (Dhariwal and Nichol 2021) as EDM has it."""

    def __init__(
        self,
        size: int,
        channels: int,
        labels: int,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        augment_dim: int = 0,
    ):
        super().__init__()
        self.noted(
            img_resolution=size,
            in_channels=channels,
            out_channels=channels,
            label_dim=labels,
            model_channels=model_channels,
            channel_mult=list(channel_mult),
            num_blocks=num_blocks,
            attn_resolutions=list(attn_resolutions),
            augment_dim=augment_dim,
        )
        emb = model_channels * 4
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(model_channels, emb), Linear(emb, emb)
        self.map_label = Linear(labels, emb, bias=False) if labels else None
        self.enc, width = nn.ModuleDict(), channels
        for level, mult in enumerate(channel_mult):
            at, before = f"{size >> level}x{size >> level}", width
            if level == 0:
                width = model_channels * mult
                self.enc[f"{at}_conv"] = Conv2d(before, width, 3)
            else:
                self.enc[f"{at}_down"] = UNetBlock(width, width, emb, down=True)
            for number in range(num_blocks):
                attends, before, width = size >> level in attn_resolutions, width, model_channels * mult
                self.enc[f"{at}_block{number}"] = UNetBlock(before, width, emb, attention=attends)
        skips = [one.out_channels if isinstance(one, UNetBlock) else one.weight.shape[0] for one in self.enc.values()]  # pyright: ignore
        self.dec = nn.ModuleDict()
        for level, mult in reversed(list(enumerate(channel_mult))):
            at = f"{size >> level}x{size >> level}"
            if level == len(channel_mult) - 1:
                self.dec[f"{at}_in0"] = UNetBlock(width, width, emb, attention=True)
                self.dec[f"{at}_in1"] = UNetBlock(width, width, emb)
            else:
                self.dec[f"{at}_up"] = UNetBlock(width, width, emb, up=True)
            for number in range(num_blocks + 1):
                attends, before, width = size >> level in attn_resolutions, width + skips.pop(), model_channels * mult
                self.dec[f"{at}_block{number}"] = UNetBlock(before, width, emb, attention=attends)
        self.out_norm, self.out_conv = GroupNorm(width), Conv2d(width, channels, 3)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor) -> Tensor:
        emb = self.map_layer1(silu(self.map_layer0(self.map_noise(noise_labels))))
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels)
        emb, skips = silu(emb), []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            x = block(torch.cat([x, skips.pop()], 1) if x.shape[1] != block.in_channels else x, emb)
        return self.out_conv(silu(self.out_norm(x)))


class EDMPrecond(Persistent):
    """Karras et al. 2022, Table 1, with classes as one-hot rows."""

    def __init__(self, model: nn.Module, size: int, channels: int, labels: int, **more: Any):
        super().__init__()
        self.noted(img_resolution=size, img_channels=channels, label_dim=labels, model_type=type(model).__name__)
        self.img_resolution, self.img_channels, self.label_dim, self.use_fp16 = size, channels, labels, False
        self.sigma_min, self.sigma_max, self.sigma_data = 0, float("inf"), 0.5
        vars(self).update(more)
        self.model = model

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        sigma = sigma.reshape(-1, 1, 1, 1)
        one_hot = nn.functional.one_hot(labels, self.label_dim).float()
        total = sigma**2 + self.sigma_data**2
        inner = self.model(x / total.sqrt(), sigma.flatten().log() / 4, one_hot)
        return self.sigma_data**2 / total * x + sigma * self.sigma_data / total.sqrt() * inner


def edm_network(seed: int = 0, *, size: int = 8, channels: int = 1, labels: int = 10, **arguments: Any) -> EDMPrecond:
    """A small one with random weights, none of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        values = {"model_channels": 128, "channel_mult": (1, 1), "num_blocks": 1, "attn_resolutions": (4,)} | arguments
        return EDMPrecond(DhariwalUNet(size, channels, labels, **values), size, channels, labels).eval()


class _Pickler(pickle.Pickler):
    """Writes persistent objects as EDM does: a function of its own, called with class name, source text and state."""

    def reducer_override(self, obj: Any, /) -> Any:
        if isinstance(obj, Persistent):
            meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": type(obj).__name__}
            return sys.modules[PERSISTENCE]._reconstruct_persistent_obj, ({**meta, "state": dict(vars(obj))},)
        return NotImplemented


def edm_bytes(content: Any, protocol: int = 4) -> bytes:
    """The pickle of `content` with its networks as EDM writes them."""

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("only its name is pickled")

    module = types.ModuleType(PERSISTENCE)
    _reconstruct_persistent_obj.__module__ = PERSISTENCE
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # pyright: ignore[reportAttributeAccessIssue]
    package = types.ModuleType(PERSISTENCE.partition(".")[0])
    package.persistence = module  # pyright: ignore[reportAttributeAccessIssue]
    added = {PERSISTENCE: module, package.__name__: package}
    sys.modules.update(added)
    try:
        stream = io.BytesIO()
        _Pickler(stream, protocol).dump(content)
        return stream.getvalue()
    finally:
        for name in added:
            del sys.modules[name]


def save_edm(path: Path, network: Any, protocol: int = 4, **more: Any) -> Path:
    """A file as EDM publishes them: a dictionary with the network as `ema`."""
    path.write_bytes(edm_bytes({"ema": network, "dataset_kwargs": {"resolution": 8}, **more}, protocol))
    return path
