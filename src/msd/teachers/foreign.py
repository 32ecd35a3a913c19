"""Networks of other makers, as our own denoisers: read from their files, and kept as a denoiser's folder, made once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.errors import WeightsError
from msd.networks.autoencoder import Autoencoder, VAECodec, offer
from msd.networks.kinds import BUILDERS
from msd.reading import fitted, reason


@dataclass(frozen=True)
class Foreign:
    """What a file of another maker holds, in our words, before a network is built of it."""

    format: str
    """For people: "EDM pickle"."""
    kind: str
    """Of network, as `networks.kinds.BUILDERS` knows it."""
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """Weights by the names that the network of that kind has for them."""
    spec: DenoiserSpec
    doubts: tuple[str, ...] = ()
    """What may not be as the maker had it."""
    classes: tuple[str, ...] = ()
    """Names of its conditions, where the maker says any."""
    autoencoder: Autoencoder | None = None
    """What its samples are latents of."""

    @property
    def num_parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    def denoiser(self, path: Path) -> Denoiser:
        """The network with these weights in float32, frozen, on the CPU; `path` is where they are from.

        Raises WeightsError for weights that are missing, too many or of another shape.
        """
        try:
            with _without_weights():
                network = BUILDERS[self.kind](dict(self.config))
        except Exception as error:  # whatever a library makes of values that nobody has foreseen
            raise WeightsError(f"{path} describes no network that can be built ({reason(error)}).") from error
        wanted = network.model.state_dict()
        self._check(wanted, path)
        network.model.load_state_dict({name: self.tensors[name] for name in wanted}, strict=True, assign=True)
        if isinstance(self.spec.codec, VAECodec) and self.autoencoder is not None:
            offer(self.spec.codec.sha256, self.autoencoder)
        return Denoiser(network, self.spec).eval().requires_grad_(False)

    def _check(self, wanted: Mapping[str, Tensor], path: Path) -> None:
        for name in sorted(wanted.keys() - self.tensors.keys()):
            raise WeightsError(f"{path} lacks the weights of {fitted(name, 80)}; restore it from where it came.")
        for name in sorted(self.tensors.keys() - wanted.keys()):
            raise WeightsError(f"{path} has weights of {fitted(name, 80)}, which its network does not have.")
        for name, value in wanted.items():
            if self.tensors[name].shape != value.shape:
                shapes = f"{tuple(self.tensors[name].shape)}, not {tuple(value.shape)}"
                raise WeightsError(f"{path}: the weights of {fitted(name, 80)} have shape {shapes}.")
            low, high = self.tensors[name].aminmax()  # in one go, and without a copy: NaN and infinity are passed on
            if not math.isfinite(low) or not math.isfinite(high):
                raise WeightsError(f"{path}: weights of {fitted(name, 80)} are not finite; restore it from where it came.")


@contextmanager
def _without_weights() -> Iterator[None]:
    """Networks that are built within have parameters on torch's meta device, as those would be thrown away, and buffers
    where they belong: of these not all are saved, so that nothing would replace them."""
    register = nn.Module.register_parameter

    def weightless(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = weightless  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        nn.Module.register_parameter = register
