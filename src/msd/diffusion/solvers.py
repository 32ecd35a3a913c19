"""Sampling from a denoiser: one step (students), Euler and Heun on the probability-flow ODE, with or without churn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msd import checks
from msd.checks import MAX_SIGMA
from msd.diffusion.denoiser import Condition, Denoise
from msd.diffusion.noise import karras_sigmas
from msd.errors import SolverError


def one_step(denoise: Denoise, noise: Tensor, condition: Condition, sigma_init: float) -> Tensor:
    """A student's whole sampler: denoise(sigma_init * noise) at sigma_init. `noise` is standard normal `[N, ...]`.

    Raises SolverError for what is no noise level.
    """
    checks.sigma(sigma_init, "sigma_init", error=SolverError)
    sigma = torch.full((len(noise),), sigma_init, dtype=noise.dtype, device=noise.device)
    return denoise(sigma_init * noise, sigma, condition)


@dataclass(frozen=True)
class Churn:
    """Noise added back before each step (Karras et al. 2022, Algorithm 2), between sigma_low and sigma_high."""

    amount: float
    sigma_low: float = 0.0
    sigma_high: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises SolverError; `sigma_high` may be infinite."""
        checks.number(self.amount, "churn amount", 0, MAX_SIGMA, error=SolverError)
        low = checks.number(self.sigma_low, "sigma_low of churn", 0, MAX_SIGMA, error=SolverError)
        checks.number(self.sigma_high, "sigma_high of churn", low, math.inf, error=SolverError)
        checks.number(self.noise_scale, "noise_scale of churn", 0, MAX_SIGMA, error=SolverError)


Slope = Callable[[Tensor, Tensor], Tensor]
"""`(x [N, ...], sigma) -> dx/dsigma` of the probability-flow ODE, one evaluation of the denoiser."""


def euler(x: Tensor, sigma: Tensor, following: Tensor, slope: Slope) -> Tensor:
    """First order, one evaluation."""
    return x + (following - sigma) * slope(x, sigma)


def heun(x: Tensor, sigma: Tensor, following: Tensor, slope: Slope) -> Tensor:
    """Second order, two evaluations; one where the step ends at noise level 0 (Karras et al. 2022, Algorithm 1)."""
    step, first = following - sigma, slope(x, sigma)
    if following == 0:
        return x + step * first
    second = slope(x + step * first, following)
    return x + step * (first + second) / 2


def _check_noise(noise: Tensor, condition: Condition) -> None:
    if not isinstance(noise, Tensor) or noise.ndim == 0 or not noise.is_floating_point():
        raise SolverError(
            f"noise is {checks.shown(noise)}, not floats [N, ...]; give standard normals, e.g. of torch.randn."
        )
    if bad := checks.num_not_finite(noise):
        raise SolverError(f"{bad} of {len(noise)} samples of noise are not finite; give standard normals.")
    if isinstance(condition, Tensor) and condition.shape[:1] != noise.shape[:1]:
        raise SolverError(f"conditions have shape {tuple(condition.shape)} for {len(noise)} samples; give one a sample.")


@dataclass(frozen=True)
class Method:
    """One step of a solver, and how many evaluations `num_steps` of them cost."""

    step: Callable[[Tensor, Tensor, Tensor, Slope], Tensor]
    num_evaluations: Callable[[int], int]


METHODS: dict[str, Method] = {
    "euler": Method(euler, lambda num_steps: num_steps),
    "heun": Method(heun, lambda num_steps: 2 * num_steps - 1),
}
"""A new solver is a function and a line here (and its name in the recipe's `SolverSection`)."""


@dataclass(frozen=True)
class Solver:
    """A sampling procedure: method, number of steps and noise range. Call it on a denoiser.

    `heun` costs 2 * num_steps - 1 function evaluations and is second order; `euler` costs num_steps and is first order.
    Noise levels are of 1e-6 to 1e6. Raises SolverError for an unknown method, fewer than one step, or levels that are no
    range.
    """

    method: Literal["heun", "euler"]
    num_steps: int
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: Churn | None = None

    def __post_init__(self) -> None:
        checks.choice(self.method, METHODS, "solver", error=SolverError)
        karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho)  # refuses what gives no grid
        if self.churn is not None:
            checks.instance(self.churn, Churn, "churn", "give Churn(amount=...)", error=SolverError)

    @property
    def num_function_evaluations(self) -> int:
        return METHODS[self.method].num_evaluations(self.num_steps)

    @property
    def name(self) -> str:
        return f"{self.method}{self.num_steps}"

    def __call__(
        self,
        denoise: Denoise,
        noise: Tensor,
        condition: Condition,
        *,
        generator: torch.Generator | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Samples `[N, ...]` float32 from standard-normal `noise` `[N, ...]`; the state is kept in float64.

        `generator` is needed with churn only; `on_step` is called with the number of finished steps. Raises SolverError for
        a denoiser that cannot be called, churn without a generator, whose samples nobody could draw again, for noise that is
        no finite float tensor (float64 is kept), for conditions of another number, and for samples that are not finite.
        """
        if not callable(denoise):
            raise SolverError(f"the denoiser is {checks.shown(denoise)}; give a function of (x, sigma, condition).")
        _check_noise(noise, condition)
        if self.churn is not None and generator is None:
            raise SolverError(
                f"{self.name} with churn draws fresh noise; give it generator=torch.Generator().manual_seed(n)."
            )
        sigmas = karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho).to(noise.device)

        def slope(x: Tensor, sigma: Tensor) -> Tensor:
            levels = torch.full((len(x),), float(sigma), dtype=torch.float32, device=x.device)
            return (x - denoise(x.float(), levels, condition).double()) / sigma

        x = noise.double() * sigmas[0]
        for index in range(self.num_steps):
            sigma, following = sigmas[index], sigmas[index + 1]
            if self.churn is not None:
                x, sigma = self._add_noise(x, sigma, self.churn, generator)
            x = METHODS[self.method].step(x, sigma, following, slope)
            if on_step is not None:
                on_step(index + 1)
        samples = x.float()
        if bad := checks.num_not_finite(samples):
            raise SolverError(
                f"{bad} of {len(samples)} samples of {self.name} are not finite; take more steps or a narrower range of "
                "noise, or check the denoiser's weights."
            )
        return samples

    def _add_noise(self, x: Tensor, sigma: Tensor, churn: Churn, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if not churn.sigma_low <= float(sigma) <= churn.sigma_high:
            return x, sigma
        raised = sigma * (1 + min(churn.amount / self.num_steps, math.sqrt(2) - 1))
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return x + (raised**2 - sigma**2).sqrt() * churn.noise_scale * fresh, raised
