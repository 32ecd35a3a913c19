"""Sampling from a denoiser: one step (students), Euler and Heun on the probability-flow ODE, with or without churn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from msd.diffusion.denoiser import Condition, Denoise
from msd.diffusion.noise import karras_sigmas
from msd.errors import SolverError


def one_step(denoise: Denoise, noise: Tensor, condition: Condition, sigma_init: float) -> Tensor:
    """A student's whole sampler: denoise(sigma_init * noise) at sigma_init. `noise` is standard normal `[N, ...]`."""
    sigma = torch.full((len(noise),), sigma_init, dtype=noise.dtype, device=noise.device)
    return denoise(sigma_init * noise, sigma, condition)


@dataclass(frozen=True)
class Churn:
    """Noise added back before each step (Karras et al. 2022, Algorithm 2), between sigma_low and sigma_high."""

    amount: float
    sigma_low: float = 0.0
    sigma_high: float = math.inf
    noise_scale: float = 1.0


@dataclass(frozen=True)
class Solver:
    """A sampling procedure: method, number of steps and noise range. Call it on a denoiser.

    `heun` costs 2 * num_steps - 1 function evaluations and is second order; `euler` costs num_steps and is first order.
    """

    method: Literal["heun", "euler"]
    num_steps: int
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    churn: Churn | None = None

    @property
    def num_function_evaluations(self) -> int:
        return 2 * self.num_steps - 1 if self.method == "heun" else self.num_steps

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
        churn without a generator, whose samples nobody could draw again.
        """
        if self.churn is not None and generator is None:
            raise SolverError(
                f"{self.name} with churn draws fresh noise; give it generator=torch.Generator().manual_seed(n)."
            )
        sigmas = karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho).to(noise.device)

        def slope(x: Tensor, sigma: Tensor) -> Tensor:  # dx/dsigma of the probability-flow ODE
            levels = torch.full((len(x),), float(sigma), dtype=torch.float32, device=x.device)
            return (x - denoise(x.float(), levels, condition).double()) / sigma

        x = noise.double() * sigmas[0]
        for index in range(self.num_steps):
            sigma, following = sigmas[index], sigmas[index + 1]
            if self.churn is not None:
                x, sigma = self._add_noise(x, sigma, self.churn, generator)
            first = slope(x, sigma)
            step = following - sigma
            if self.method == "heun" and following > 0:
                second = slope(x + step * first, following)
                x = x + step * (first + second) / 2
            else:
                x = x + step * first
            if on_step is not None:
                on_step(index + 1)
        return x.float()

    def _add_noise(self, x: Tensor, sigma: Tensor, churn: Churn, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if not churn.sigma_low <= float(sigma) <= churn.sigma_high:
            return x, sigma
        raised = sigma * (1 + min(churn.amount / self.num_steps, math.sqrt(2) - 1))
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return x + (raised**2 - sigma**2).sqrt() * churn.noise_scale * fresh, raised
