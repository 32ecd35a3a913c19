"""THE contract: `denoise(x, sigma, condition) -> x0`, and what turns a raw network into it.

Every `x` in this package is in EDM (variance-exploding) scaling, x = x0 + sigma * n. Timesteps, alphas, eps, v and flow
velocity exist only inside a `Parameterisation`. Each of them is the same affine shape,

    x0 = c_skip(sigma) x + c_out(sigma) F(c_in(sigma) x, c_noise(sigma), condition),

so EDM, variance-preserving and flow networks differ by four scalars per noise level and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from msd import checks
from msd.checks import MAX_SIGMA, MIN_SIGMA
from msd.diffusion.codec import AffineCodec, Codec, Shape
from msd.errors import ConditionError, WeightsError

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

    def __post_init__(self) -> None:
        checks.sigma(self.sigma_data, "sigma_data", error=WeightsError)

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

    def __post_init__(self) -> None:
        """Raises WeightsError for an unknown prediction, or a schedule that does not fall from below 1 to above 0."""
        checks.choice(self.prediction, ("eps", "v", "x0"), "prediction", error=WeightsError)
        values = [
            checks.number(value, f"alphas_cumprod[{index}]", 0, 1, error=WeightsError)
            for index, value in enumerate(checks.items(self.alphas_cumprod, "alphas_cumprod", "numbers", error=WeightsError))
        ]
        falls = all(1 > high > low > 0 for high, low in pairwise(values))
        if len(values) < 2 or not falls:
            raise WeightsError("alphas_cumprod must fall from step to step, between 1 and 0; give the training schedule's.")

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

    def __post_init__(self) -> None:
        checks.number(self.time_scale, "time_scale", MIN_SIGMA, MAX_SIGMA, error=WeightsError)

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
    licence: str = "not stated"

    def __post_init__(self) -> None:
        """Raises WeightsError naming a field that no denoiser can have; sizes may come as any kind of list."""
        object.__setattr__(self, "noise_shape", checks.shape(self.noise_shape, "noise_shape", error=WeightsError))
        checks.whole(self.num_conditions, "num_conditions", 1, error=WeightsError)
        checks.sigma_range(self.sigma_min, self.sigma_max, ("sigma_min", "sigma_max"), error=WeightsError)
        if self.sigma_init is not None:
            checks.sigma(self.sigma_init, "sigma_init", error=WeightsError)
        checks.number(self.guidance, "guidance", -MAX_SIGMA, MAX_SIGMA, error=WeightsError)

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

    num_evaluations = 1
    """Of its network, by one call."""

    def __init__(self, network: nn.Module, spec: DenoiserSpec):
        super().__init__()
        checks.instance(network, nn.Module, "network", "give a torch module", error=WeightsError)
        checks.instance(spec, DenoiserSpec, "spec", "give a DenoiserSpec", error=WeightsError)
        self.network = network
        self.spec = spec
        self._trained = frozenset(name for name, value in network.named_parameters() if value.requires_grad)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Clean estimate `[N, ...]` float32 of `x` `[N, ...]` at noise levels `sigma` `[N]`, under conditions `[N]`.

        Raises ConditionError when the three do not belong together, for samples of another shape than the spec's, or for a
        class that the network does not know. Noise levels that are not above 0 are refused on the CPU; on other devices
        values are not looked at, as that would wait for them.
        """
        check_inputs(x, sigma, condition)
        if tuple(x.shape[1:]) != tuple(self.spec.noise_shape):
            raise ConditionError(f"x has samples of shape {tuple(x.shape[1:])}, not {self.spec.noise_shape}; give such.")
        scalings = self.spec.parameterisation.scalings(sigma)
        try:
            raw = self.network(per_sample(scalings.c_in, x) * x, scalings.c_noise, condition)
        except IndexError as error:
            raise ConditionError(unknown_class(self.spec.num_conditions)) from error
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


class GuidedDenoiser(Denoiser):
    """A teacher with classifier-free guidance: its call is guided by the scale that its spec says, at twice the cost.

    A copy of it is not: it is the network alone, to be trained into a student, which learns what guidance adds (its spec
    goes on to say by how much), or into a critic of such students.
    """

    num_evaluations = 2

    def __init__(self, denoiser: Denoiser, scale: float, null_label: int):
        """`null_label` is the class that stands for none. Raises ConditionError for a scale that is no finite number."""
        super().__init__(denoiser.network, replace(denoiser.spec, guidance=scale))
        self._trained = denoiser._trained
        self._null_label = null_label
        self._guided = guided(super().forward, scale, self._none)

    def _none(self, condition: Condition) -> Condition:
        if not isinstance(condition, Tensor):
            raise ConditionError("guidance without a class is known of class labels only; give class numbers.")
        return torch.full_like(condition, self._null_label)

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """As `Denoiser`, under no condition and then, last, under `condition`."""
        return self._guided(x, sigma, condition)

    def copy(self) -> Denoiser:
        other = Denoiser(self.network, self.spec)
        other._trained = self._trained
        return other.copy()


def check_inputs(x: Tensor, sigma: Tensor, condition: Condition) -> None:
    """Types and shapes of what a denoiser is called with, and what costs nothing to look at. Raises ConditionError."""
    if not isinstance(x, Tensor) or not isinstance(sigma, Tensor) or x.ndim == 0 or not x.is_floating_point():
        raise ConditionError(
            f"x {checks.shown(x)} and sigma {checks.shown(sigma)} are no float tensors; give [N, ...] and [N]."
        )
    if sigma.shape != x.shape[:1]:
        raise ConditionError(f"sigma has shape {tuple(sigma.shape)} for {len(x)} samples; give one noise level a sample.")
    if sigma.device.type == "cpu" and not bool((sigma > 0).all()):  # NaN is not above 0 either
        raise ConditionError(f"sigma holds {checks.shown(float(sigma.min()))}; noise levels are above 0.")
    if not isinstance(condition, Tensor):
        if not isinstance(condition, Mapping):
            raise ConditionError(f"conditions are {checks.shown(condition)}; give class numbers, or named tensors.")
        return
    if condition.ndim == 0 or len(condition) != len(x):
        raise ConditionError(f"conditions have shape {tuple(condition.shape)} for {len(x)} samples; give one a sample.")
    if condition.ndim == 1 and condition.dtype not in (torch.int64, torch.int32):
        kind = str(condition.dtype).removeprefix("torch.")
        raise ConditionError(f"class labels are of type {kind}; give whole class numbers, e.g. torch.tensor([3, 7]).")


def unknown_class(num_conditions: int) -> str:
    return f"a class is outside those that the denoiser knows; classes are 0 to {num_conditions - 1}."


def guided(denoise: Denoise, scale: float, null_condition: Callable[[Condition], Condition]) -> Denoise:
    """Classifier-free guidance: D_null + scale (D_condition - D_null); `scale` 1 returns `denoise` itself.

    Raises ConditionError for a scale that is no finite number.
    """
    checks.number(scale, "guidance scale", -MAX_SIGMA, MAX_SIGMA, error=ConditionError)
    if scale == 1:
        return denoise

    def denoise_with_guidance(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        without = denoise(x, sigma, null_condition(condition))
        return without + scale * (denoise(x, sigma, condition) - without)

    return denoise_with_guidance
