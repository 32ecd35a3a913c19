"""THE contract: `denoise(x, sigma, condition) -> x0`, and what turns a raw network into it.

Every `x` in this package is in EDM (variance-exploding) scaling, x = x0 + sigma * n. Timesteps, alphas, eps, v and flow
velocity exist only inside a `Parameterisation`. Each of them is the same affine shape,

    x0 = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, c_noise(sigma), condition),

so EDM, variance-preserving and flow networks differ by four scalars per noise level and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from msd.diffusion.codec import AffineCodec, Codec, Shape

Condition = Tensor | Mapping[str, Tensor]
"""What the network is given, one row a sample: class labels `[N]` int64, or named tensors. Rooms in between pass it on
without looking inside; where it comes from is `conditions.table`."""

Denoise = Callable[[Tensor, Tensor, Any], Tensor]
"""`(x [N, ...], sigma [N], condition) -> x0 [N, ...]` float32. Teacher, critic and student are all of this type; which kind
of `Condition` it takes is its own."""


def condition_to(condition: Condition, device: torch.device) -> Condition:
    """The same condition on `device`."""
    if isinstance(condition, Tensor):
        return condition.to(device)
    return {name: value.to(device) for name, value in condition.items()}


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape `[N]` to `[N, 1, ...]` so that it broadcasts over the trailing dimensions of `like`."""
    return values.reshape(-1, *([1] * (like.ndim - 1)))


@dataclass(frozen=True)
class Scalings:
    """The four coefficients of a parameterisation at noise levels sigma, each `[N]`."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Parameterisation(Protocol):
    """A frozen dataclass of plain values that knows its four coefficients."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def scalings(self, sigma: Tensor) -> Scalings: ...


@dataclass(frozen=True)
class EDMParameterisation:
    """EDM preconditioning (Karras et al. 2022, Table 1); the network sees ln(sigma) / 4."""

    sigma_data: float = 0.5

    def scalings(self, sigma: Tensor) -> Scalings:
        total = sigma**2 + self.sigma_data**2
        return Scalings(
            c_skip=self.sigma_data**2 / total,
            c_out=sigma * self.sigma_data * total.rsqrt(),
            c_in=total.rsqrt(),
            c_noise=sigma.log() / 4,
        )


@dataclass(frozen=True)
class VPParameterisation:
    """Variance-preserving networks (DDPM and kin): x_t = alpha x0 + sqrt(1 - alpha^2) n, alpha = 1 / sqrt(1 + sigma^2).

    `alphas_cumprod` is the training schedule, alpha^2 per integer timestep; t(sigma) interpolates it in log sigma and is
    clamped to the schedule's ends.
    """

    prediction: Literal["eps", "v", "x0"]
    alphas_cumprod: tuple[float, ...]

    def timestep(self, sigma: Tensor) -> Tensor:
        """The (fractional) training timestep whose noise level is sigma."""
        squares = torch.tensor(self.alphas_cumprod, dtype=torch.float64, device=sigma.device)
        levels = (((1 - squares) / squares).sqrt()).log()  # increasing in t
        wanted = sigma.double().log()
        above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        position = (above - 1) + (wanted - low) / (high - low)
        return position.clamp(0, len(levels) - 1).to(sigma.dtype)

    def scalings(self, sigma: Tensor) -> Scalings:
        alpha = (1 + sigma**2).rsqrt()
        c_skip, c_out = {
            "eps": (torch.ones_like(sigma), -sigma),  # x0 = x - sigma eps
            "v": (alpha**2, -sigma * alpha),  # v = alpha eps - sigma alpha x0
            "x0": (torch.zeros_like(sigma), torch.ones_like(sigma)),
        }[self.prediction]
        return Scalings(c_skip=c_skip, c_out=c_out, c_in=alpha, c_noise=self.timestep(sigma))


@dataclass(frozen=True)
class FlowParameterisation:
    """Rectified-flow networks: x_t = (1 - t) x0 + t n, velocity n - x0, t = sigma / (1 + sigma)."""

    time_scale: float = 1.0
    """Multiplies t before the network sees it (1000 for most text-to-image flow models)."""

    def scalings(self, sigma: Tensor) -> Scalings:
        time = sigma / (1 + sigma)
        return Scalings(c_skip=1 - time, c_out=-time, c_in=1 - time, c_noise=time * self.time_scale)


PARAMETERISATIONS: dict[str, type] = {"edm": EDMParameterisation, "vp": VPParameterisation, "flow": FlowParameterisation}


@dataclass(frozen=True)
class DenoiserSpec:
    """Everything beyond the network's weights that is needed to use a denoiser rightly; saved beside the weights."""

    noise_shape: Shape
    """Of one sample in the model's space; the shape of its pixels is the codec's to say."""
    num_conditions: int
    parameterisation: Parameterisation = field(default_factory=EDMParameterisation)
    codec: Codec = field(default_factory=AffineCodec)
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_init: float | None = None
    """The one noise level that a student starts from; None for a many-step denoiser."""
    guidance: float = 1.0
    """Classifier-free guidance already folded into the weights (student), or to be applied (teacher); 1 is none."""
    licence: str = "Apache-2.0"

    @property
    def pixel_shape(self) -> Shape:
        return self.codec.pixel_shape(self.noise_shape)

    @property
    def sigma_data(self) -> float:
        """Deviation of the data in the model's space, which denoising losses are weighted by; 0.5 (EDM's) unless stated."""
        return getattr(self.parameterisation, "sigma_data", 0.5)


class Denoiser(nn.Module):
    """A network with its parameterisation: an `nn.Module` whose call is the `Denoise` contract.

    Give it the network as its architecture makes it: which parameters ask for a gradient then is remembered as what is to
    be trained in any copy.
    """

    def __init__(self, network: nn.Module, spec: DenoiserSpec):
        super().__init__()
        self.network = network
        self.spec = spec
        self._trained = frozenset(name for name, value in network.named_parameters() if value.requires_grad)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Clean estimate `[N, ...]` float32 of `x` `[N, ...]` at noise levels `sigma` `[N]`."""
        scalings = self.spec.parameterisation.scalings(sigma)
        raw = self.network(per_sample(scalings.c_in, x) * x, scalings.c_noise, condition)
        return (per_sample(scalings.c_skip, x) * x + per_sample(scalings.c_out, x) * raw).float()

    def copy(self) -> Denoiser:
        """A deep copy in evaluation mode, to be trained: also of a frozen denoiser, and without what its architecture keeps
        fixed (random Fourier features)."""
        other = copy.deepcopy(self).eval()
        for name, value in other.network.named_parameters():
            value.requires_grad_(name in self._trained)
        return other

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def guided(denoise: Denoise, scale: float, null_condition: Callable[[Condition], Condition]) -> Denoise:
    """Classifier-free guidance: D_null + scale (D_condition - D_null); `scale` 1 returns `denoise` itself."""
    if scale == 1:
        return denoise

    def denoise_with_guidance(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        without = denoise(x, sigma, null_condition(condition))
        return without + scale * (denoise(x, sigma, condition) - without)

    return denoise_with_guidance
