"""What every kind of network that can be saved has in common: one call, its configuration, its files, its places."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from msd.diffusion.denoiser import Denoiser
from msd.errors import WeightsError
from msd.networks.facts import WEIGHTS
from msd.networks.tensors import share


class Adapter(nn.Module):
    """A raw network behind one call, `network(x, noise_level, condition) -> output`; `model` holds the weights."""

    kind: ClassVar[str]
    """What its folder calls it, as `networks.kinds.BUILDERS` knows it."""
    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(self, x: Tensor, noise_level: Tensor, condition: Any) -> Tensor:
        """The network's own answer, `[N, ...]` as `x`, at the noise levels that its parameterisation gives it, `[N]`."""

    @abstractmethod
    def places(self) -> Mapping[str, nn.Module]:
        """The parts that can be tapped, by name, from input to output."""

    @staticmethod
    def features(output: Any) -> Tensor:
        """Features `[N, C, ...]` of what one of `places` answers. A block on the way in also gives what skips over to its
        counterpart."""
        return output[0] if isinstance(output, tuple) else output

    def config(self) -> dict[str, Any]:
        """The keyword arguments that it was built from; those of a diffusers model unless a kind says otherwise."""
        return {key: value for key, value in self.model.config.items() if not key.startswith("_")}

    def save(self, folder: str) -> None:
        """Its configuration and one file of weights, whatever the size: a second one would escape the checksum."""
        self.model.save_pretrained(folder, safe_serialization=True, max_shard_size=2**62)
        share(Path(folder) / WEIGHTS)


def adapter_of(denoiser: Denoiser) -> Adapter:
    """The adapted network inside a denoiser. Raises WeightsError for a network that is not one of ours to save."""
    if not isinstance(denoiser.network, Adapter):
        kind = type(denoiser.network).__name__
        raise WeightsError(f"a {kind} cannot be saved or inspected; use a UNet2DModel or a SongUNet.")
    return denoiser.network
