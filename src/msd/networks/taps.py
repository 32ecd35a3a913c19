"""Taps: places inside a network where its features can be read, in the same forward that gives its output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from msd import checks
from msd.diffusion.codec import Shape
from msd.diffusion.denoiser import Condition, Denoise, Denoiser
from msd.errors import RecipeError, WeightsError
from msd.networks.build import LabelledUNet, ToyMLP

BOTTLENECK = "bottleneck"
"""The innermost place: a U-Net's middle block. DMD2 puts its discriminator there."""


def taps(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that can be tapped, by name, from input to output.

    `down.N` is a U-Net's N-th block on the way in, after its halving; `up.N` the N-th on the way out; `block.N` a layer of
    the toy's network. Raises WeightsError for a network of another kind.
    """
    if isinstance(network, LabelledUNet):
        model = network.model
        found = {f"down.{number}": block for number, block in enumerate(model.down_blocks)}
        if model.mid_block is not None:
            found[BOTTLENECK] = model.mid_block
        return found | {f"up.{number}": block for number, block in enumerate(model.up_blocks)}
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
        if name not in places:
            raise RecipeError(f"the network has no tap {checks.shown(name)}; it has {', '.join(places)}.")
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
