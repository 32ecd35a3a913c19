"""Taps: places inside a network where its features can be read, in the same forward that gives its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msd.diffusion.codec import Shape
from msd.diffusion.denoiser import Condition, Denoise, Denoiser
from msd.errors import WeightsError
from msd.networks.build import LabelledUNet, ToyMLP
from msd.networks.places import BOTTLENECK, check_place, place_names


def taps(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that can be tapped, by name, from input to output.

    A U-Net's are named by `places`; `block.N` is a layer of the toy's network. Raises WeightsError for a network of another
    kind.
    """
    if isinstance(network, LabelledUNet):
        model = network.model
        middle = [] if model.mid_block is None else [model.mid_block]
        blocks = [*model.down_blocks, *middle, *model.up_blocks]
        return dict(zip(place_names(len(model.down_blocks), has_mid=bool(middle)), blocks, strict=True))
    if isinstance(network, ToyMLP):
        blocks = list(network.blocks)
        return {BOTTLENECK: blocks[len(blocks) // 2]} | {f"block.{number}": block for number, block in enumerate(blocks)}
    raise WeightsError(f"nobody knows where to tap a {type(network).__name__}; use a UNet2DModel.")


class Tap:
    """One named place in a denoiser. Raises RecipeError when there is no such place, naming those that there are.

    What is called is the denoiser itself or the role that holds it, so what wraps it for many processes is not bypassed.
    """

    def __init__(self, denoiser: Denoiser, name: str):
        places = taps(denoiser.network)
        check_place(name, places)
        self.name = name
        self.place = places[name]

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        """What `denoise` answers, `[N, ...]`, and the features `[N, C, ...]` that passed here, from one forward."""
        seen: list[Any] = []
        # Only while it is called: a module with a hook on it cannot be copied or saved as it is.
        hook = self.place.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            x0 = denoise(x, sigma, condition)
        finally:
            hook.remove()
        assert len(seen) == 1, "another denoiser was called than the tapped one"
        # A block on the way in also gives what skips over to its counterpart.
        features = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        return x0, features

    @torch.no_grad()
    def shape(self, denoiser: Denoiser, condition: Condition) -> Shape:
        """Shape `[C, ...]` of one sample's features, found by asking for one under `condition`, which is of one sample."""
        device = next(denoiser.parameters()).device
        x, sigma = torch.zeros(1, *denoiser.spec.noise_shape, device=device), torch.ones(1, device=device)
        return tuple(self(denoiser, x, sigma, condition)[1].shape[1:])
