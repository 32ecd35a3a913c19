"""Noise levels: the grid a solver walks and the laws training draws from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from msd import checks
from msd.checks import MAX_LOG_DEVIATION, MAX_SIGMA, MAX_STEPS, MIN_SIGMA
from msd.diffusion.draw import Draw
from msd.errors import SolverError


def karras_sigmas(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Decreasing grid `[num_steps + 1]` float64 from sigma_max to sigma_min, then 0 (Karras et al. 2022, eq. 5).

    Raises SolverError for fewer than one step, or noise levels that are no range.
    """
    checks.whole(num_steps, "num_steps", 1, MAX_STEPS, error=SolverError)
    _check_axis(sigma_min, sigma_max, rho)
    if num_steps == 1:
        return torch.tensor([sigma_max, 0.0], dtype=torch.float64)
    position = torch.arange(num_steps, dtype=torch.float64) / (num_steps - 1)
    return torch.cat([_karras(position, sigma_min, sigma_max, rho), torch.zeros(1, dtype=torch.float64)])


def _karras(position: Tensor, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Noise level at `position` in [0, 1], 0 being sigma_max, uniform in sigma^(1/rho)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return (high + position * (low - high)) ** rho


def _check_axis(sigma_min: float, sigma_max: float, rho: float) -> None:
    checks.sigma_range(sigma_min, sigma_max, ("sigma_min", "sigma_max"), error=SolverError)
    checks.number(rho, "rho", 0.1, 100, error=SolverError)


class NoiseLaw(Protocol):
    def sample(self, num: int, draw: Draw) -> Tensor:
        """This process's rows of `num` noise levels, `[num / num_ranks]` float32, on the draw's device."""
        ...


@dataclass(frozen=True)
class LogNormalLaw:
    """ln sigma ~ N(mean, deviation^2): EDM's training law (mean -1.2, deviation 1.2)."""

    mean: float = -1.2
    deviation: float = 1.2

    def __post_init__(self) -> None:
        """Raises SolverError."""
        checks.number(self.mean, "mean of ln(sigma)", math.log(MIN_SIGMA), math.log(MAX_SIGMA), error=SolverError)
        checks.number(self.deviation, "deviation of ln(sigma)", 0, MAX_LOG_DEVIATION, error=SolverError)

    def sample(self, num: int, draw: Draw) -> Tensor:
        return (draw.normal(num) * self.deviation + self.mean).exp()


@dataclass(frozen=True)
class KarrasLaw:
    """Uniform on the Karras grid's axis between sigma_min and sigma_max: DMD's law for the matching gradient."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        """Raises SolverError."""
        _check_axis(self.sigma_min, self.sigma_max, self.rho)

    def sample(self, num: int, draw: Draw) -> Tensor:
        return _karras(draw.uniform(num), self.sigma_min, self.sigma_max, self.rho)
