"""From a small configuration to a raw network with one call: `network(x, noise_level, condition) -> output`.

diffusers models are imported inside the functions: that import takes seconds and many commands need none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from msd.errors import RecipeError
from msd.networks.adapter import Adapter
from msd.networks.anatomy import KIND
from msd.networks.places import BOTTLENECK, place_names

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d import UNet2DModel


class LabelledUNet(Adapter):
    """diffusers' UNet2DModel, with class labels or, where it has no table of them, without conditions."""

    kind = KIND
    model: UNet2DModel

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        labels = None if self.model.class_embedding is None else condition
        output = self.model(x, noise_level, class_labels=labels, return_dict=False)[0]
        return output[:, : x.shape[1]]  # any more is a learned variance, of which no denoiser knows anything

    def places(self) -> dict[str, nn.Module]:
        """Named as `networks.places` has it."""
        model = self.model
        middle = [] if model.mid_block is None else [model.mid_block]
        blocks = [*model.down_blocks, *middle, *model.up_blocks]
        return dict(zip(place_names(len(model.down_blocks), has_mid=bool(middle)), blocks, strict=True))


def build_unet(config: dict[str, Any]) -> LabelledUNet:
    """A randomly initialised UNet2DModel from its own keyword arguments."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    return LabelledUNet(UNet2DModel(**config))


def unet_config(noise_shape: tuple[int, ...], num_conditions: int, network: dict[str, Any]) -> dict[str, Any]:
    """UNet2DModel arguments for square noise `[C, S, S]` from a recipe's `network` section (plain convolution blocks).

    Raises RecipeError when samples of that size cannot be halved from level to level.
    """
    if len(noise_shape) != 3 or noise_shape[1] != noise_shape[2]:
        raise RecipeError(f"samples have shape {noise_shape}; a U-Net needs square ones, [channels, size, size].")
    channels, size, _ = noise_shape
    levels = len(network["block_out_channels"])
    if size % 2 ** (levels - 1):
        raise RecipeError(
            f"network.block_out_channels has {levels} levels, but a size of {size} cannot be halved "
            f"{levels - 1} times; give fewer."
        )
    return {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "num_class_embeds": num_conditions,
        "block_out_channels": list(network["block_out_channels"]),
        "layers_per_block": network["layers_per_block"],
        "norm_num_groups": network["norm_num_groups"],
        "down_block_types": ["DownBlock2D"] * levels,
        "up_block_types": ["UpBlock2D"] * levels,
        "add_attention": network["attention"],
        "resnet_time_scale_shift": "scale_shift",
        "dropout": network["dropout"],
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


class ToyMLP(nn.Module):
    """A residual MLP for points `[N, D]`: the toy's stand-in for a U-Net, same call.

    The points enter with sines and cosines of themselves too, without which a small network blurs fine shapes.
    """

    def __init__(self, dimension: int, num_conditions: int, width: int, depth: int):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", 2.0 ** torch.arange(-2, 4) * math.pi / 2)
        self.waves: Tensor
        self.register_buffer("waves", torch.tensor([0.5, 1.0, 2.0]) * math.pi)
        self.enter = nn.Linear(dimension * (1 + 2 * 3) + 2 * 6, width)
        self.label = nn.Embedding(num_conditions, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, dimension)

    def places(self) -> dict[str, nn.Module]:
        """`block.N` is its N-th layer, the middle one also the bottleneck."""
        blocks = list(self.blocks)
        return {BOTTLENECK: blocks[len(blocks) // 2]} | {f"block.{number}": block for number, block in enumerate(blocks)}

    @staticmethod
    def features(output: Tensor) -> Tensor:
        return output

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        angles = noise_level[:, None] * self.frequencies
        phases = (x[:, :, None] * self.waves).flatten(1)
        inputs = torch.cat([x, phases.sin(), phases.cos(), angles.sin(), angles.cos()], 1)
        hidden = self.enter(inputs) + self.label(condition)
        for block in self.blocks:
            hidden = hidden + nn.functional.silu(block(nn.functional.silu(hidden)))
        return self.leave(nn.functional.silu(hidden))
