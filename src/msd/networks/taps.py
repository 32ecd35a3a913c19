"""Taps: places inside a network where its features can be read, in the same forward that gives its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from msd.diffusion.codec import Shape
from msd.diffusion.denoiser import Condition, Denoise, Denoiser
from msd.errors import WeightsError
from msd.networks.adapter import Adapter
from msd.networks.build import ToyMLP
from msd.networks.places import check_place


class Tappable(Protocol):
    """A network that says where it can be tapped: every `Adapter`, and the toy's."""

    def places(self) -> Mapping[str, nn.Module]: ...

    def features(self, output: Any, /) -> Tensor: ...


def tappable(network: nn.Module) -> Tappable:
    """The network itself. Raises WeightsError for one that does not say where it can be tapped."""
    if not isinstance(network, Adapter | ToyMLP):
        raise WeightsError(f"nobody knows where to tap a {type(network).__name__}; use a UNet2DModel or a SongUNet.")
    return network


class Tap:
    """One named place in a denoiser. Raises RecipeError when there is no such place, naming those that there are.

    What is called is the denoiser itself or the role that holds it, so what wraps it for many processes is not bypassed.
    """

    def __init__(self, denoiser: Denoiser, name: str):
        self._network = tappable(denoiser.network)
        places = self._network.places()
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
        assert seen, "another denoiser was called than the tapped one"
        # A guided teacher asks twice, last under the condition.
        return x0, self._network.features(seen[-1])

    @torch.no_grad()
    def shape(self, denoiser: Denoiser, condition: Condition) -> Shape:
        """Shape `[C, ...]` of one sample's features, found by asking for one under `condition`, which is of one sample."""
        device = next(denoiser.parameters()).device
        x, sigma = torch.zeros(1, *denoiser.spec.noise_shape, device=device), torch.ones(1, device=device)
        return tuple(self(denoiser, x, sigma, condition)[1].shape[1:])
