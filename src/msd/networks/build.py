"""From a small configuration to a raw network with one call: `network(x, noise_level, condition) -> output`.

diffusers models are imported inside the functions: that import takes seconds and many commands need none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from msd.diffusion.denoiser import Denoiser
from msd.errors import RecipeError, WeightsError

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d import UNet2DModel


class LabelledUNet(nn.Module):
    """diffusers' UNet2DModel with class labels."""

    kind = "unet2d"

    def __init__(self, model: UNet2DModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        return self.model(x, noise_level, class_labels=condition, return_dict=False)[0]

    def save(self, folder: str) -> None:
        """One file of weights, whatever the size: a second one would escape the checksum."""
        self.model.save_pretrained(folder, safe_serialization=True, max_shard_size=2**62)


def unet_of(denoiser: Denoiser) -> LabelledUNet:
    """The adapted network inside a denoiser. Raises WeightsError for a network that is not one of ours to save."""
    if not isinstance(denoiser.network, LabelledUNet):
        raise WeightsError(f"a {type(denoiser.network).__name__} cannot be saved or inspected; use a UNet2DModel.")
    return denoiser.network


def config_of(denoiser: Denoiser) -> dict[str, Any]:
    """What the adapted network was built from: the keyword arguments of its UNet2DModel. Raises WeightsError."""
    return {key: value for key, value in unet_of(denoiser).model.config.items() if not key.startswith("_")}


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

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        angles = noise_level[:, None] * self.frequencies
        phases = (x[:, :, None] * self.waves).flatten(1)
        inputs = torch.cat([x, phases.sin(), phases.cos(), angles.sin(), angles.cos()], 1)
        hidden = self.enter(inputs) + self.label(condition)
        for block in self.blocks:
            hidden = hidden + nn.functional.silu(block(nn.functional.silu(hidden)))
        return self.leave(nn.functional.silu(hidden))
