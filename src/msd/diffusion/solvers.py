"""Sampling from a denoiser: one step (students), and a table of solvers of the probability-flow ODE and of EDM's SDE.

A solver is a function that walks down a grid of noise levels and hands out the state after every step. `METHODS` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from msd import checks
from msd.checks import MAX_SIGMA
from msd.diffusion.denoiser import Condition, Denoise
from msd.diffusion.evaluations import NUM_EVALUATIONS
from msd.diffusion.noise import karras_sigmas
from msd.errors import SolverError

MethodName = Literal["heun", "euler", "dpmpp2m", "heun-sde"]

StepNoise = Callable[[int], Tensor]
"""Of step 0, 1, ...: fresh standard normals `[N, ...]`, an image's a function of its own seed (`draw.noise_by_step`)."""


def one_step(denoise: Denoise, noise: Tensor, condition: Condition, sigma_init: float) -> Tensor:
    """A student's whole sampler: denoise(sigma_init * noise) at sigma_init. `noise` is standard normal `[N, ...]`.

    Raises SolverError for what is no noise level.
    """
    checks.sigma(sigma_init, "sigma_init", error=SolverError)
    sigma = torch.full((len(noise),), sigma_init, dtype=noise.dtype, device=noise.device)
    return denoise(sigma_init * noise, sigma, condition)


@dataclass(frozen=True)
class Churn:
    """Noise added back before each step (Karras et al. 2022, Algorithm 2), between sigma_low and sigma_high.

    The defaults are EDM's for ImageNet-64, where 256 steps were taken: S_churn, S_tmin, S_tmax and S_noise of its Table 5.
    """

    amount: float = 40.0
    """S_churn: a step raises its noise level by the share min(amount / number of steps, sqrt(2) - 1), so with fewer than 97
    steps the default is the most there can be."""
    sigma_low: float = 0.05
    sigma_high: float = 50.0
    noise_scale: float = 1.003
    """Deviation of what is added, a little above 1 as a denoiser takes slightly too much noise away."""

    def __post_init__(self) -> None:
        """Raises SolverError; `sigma_high` may be infinite."""
        checks.number(self.amount, "churn amount", 0, MAX_SIGMA, error=SolverError)
        low = checks.number(self.sigma_low, "sigma_low of churn", 0, MAX_SIGMA, error=SolverError)
        checks.number(self.sigma_high, "sigma_high of churn", low, math.inf, error=SolverError)
        checks.number(self.noise_scale, "noise_scale of churn", 0, MAX_SIGMA, error=SolverError)


@dataclass(frozen=True)
class Problem:
    """What a method is given: the state at the first noise level, the levels, and whom to ask for the rest."""

    start: Tensor
    """`[N, ...]` float64."""
    sigmas: Tensor
    """`[num_steps + 1]` float64, decreasing, 0 at the end."""
    denoised: Callable[[Tensor, Tensor], Tensor]
    """`(x [N, ...], sigma) -> x0 [N, ...]`, both float64: one evaluation of the denoiser."""
    churned: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
    """`(step, x, sigma) -> (x, sigma)` with fresh noise: for stochastic methods alone."""

    def slope(self, x: Tensor, sigma: Tensor) -> Tensor:
        """dx/dsigma of the probability-flow ODE, one evaluation."""
        return (x - self.denoised(x, sigma)) / sigma

    @property
    def steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each step's noise level and the following one."""
        return pairwise(self.sigmas)


def euler(problem: Problem) -> Iterator[Tensor]:
    """First order, one evaluation a step."""
    x = problem.start
    for sigma, following in problem.steps:
        x = x + (following - sigma) * problem.slope(x, sigma)
        yield x


def heun(problem: Problem) -> Iterator[Tensor]:
    """Second order, two evaluations a step, one in the last (Karras et al. 2022, Algorithm 1)."""
    x = problem.start
    for sigma, following in problem.steps:
        x = _heun_step(problem, x, sigma, following)
        yield x


def heun_sde(problem: Problem) -> Iterator[Tensor]:
    """Heun's steps, each from a noise level raised by fresh noise (Karras et al. 2022, Algorithm 2)."""
    x = problem.start
    for index, (sigma, following) in enumerate(problem.steps):
        x, raised = problem.churned(index, x, sigma)
        x = _heun_step(problem, x, raised, following)
        yield x


def _heun_step(problem: Problem, x: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    step, first = following - sigma, problem.slope(x, sigma)
    if following == 0:
        return x + step * first
    second = problem.slope(x + step * first, following)
    return x + step * (first + second) / 2


def dpmpp2m(problem: Problem) -> Iterator[Tensor]:
    """DPM-Solver++(2M): second order, one evaluation a step (Lu et al. 2022, Algorithm 2), for alpha = 1 and so in
    lambda = -ln(sigma).

    The denoised image is extrapolated along lambda from the last two. The first step has no last one and the step to noise
    level 0 is infinitely long in lambda, so these two are of first order, as is usual.
    """
    x, earlier, earlier_step = problem.start, None, 0.0
    for sigma, following in problem.steps:
        denoised = problem.denoised(x, sigma)
        ratio, target = following / sigma, denoised  # ratio is exp(-step of lambda)
        step = -math.log(ratio) if following > 0 else math.inf
        if earlier is not None and following > 0:
            target = denoised + (denoised - earlier) * (step / (2 * earlier_step))
        x = ratio * x + (1 - ratio) * target
        earlier, earlier_step = denoised, step
        yield x


@dataclass(frozen=True)
class Method:
    """A solver: how it walks, and what people call it. What its steps cost stands in `evaluations.NUM_EVALUATIONS`."""

    walk: Callable[[Problem], Iterator[Tensor]]
    title: str
    is_stochastic: bool = False


METHODS: dict[str, Method] = {
    "euler": Method(euler, "Euler"),
    "heun": Method(heun, "Heun"),
    "dpmpp2m": Method(dpmpp2m, "DPM-Solver++(2M)"),
    "heun-sde": Method(heun_sde, "churned Heun", is_stochastic=True),
}
"""A new solver is a function and a line here, what it costs in `evaluations.py`, its name in `MethodName`, and in the
recipe's words (`recipe/words.py`)."""


@dataclass(frozen=True)
class Solver:
    """A sampling procedure: method, number of steps and noise range. Call it on a denoiser.

    `heun` costs 2 * num_steps - 1 function evaluations and is second order, `dpmpp2m` num_steps and second order, `euler`
    num_steps and first order. `heun-sde` costs what heun does and adds fresh noise, by `churn` (None: its defaults), which
    the others do not take. Noise levels are of 1e-6 to 1e6. Raises SolverError for an unknown method, fewer than one step,
    levels that are no range, or churn that the method does not take.
    """

    method: MethodName
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
            if not self.is_stochastic:
                raise SolverError(f"{self.method} adds no noise, so churn would do nothing; choose heun-sde, or give none.")
        elif self.is_stochastic:
            object.__setattr__(self, "churn", Churn())

    @property
    def num_function_evaluations(self) -> int:
        return NUM_EVALUATIONS[self.method](self.num_steps)

    @property
    def is_stochastic(self) -> bool:
        """Whether samples depend on more than the noise that they start from: it must be called with `step_noise`."""
        return METHODS[self.method].is_stochastic

    @property
    def name(self) -> str:
        return f"{self.method}{self.num_steps}"

    @property
    def description(self) -> str:
        """For people: "18 Heun steps"."""
        return f"{self.num_steps} {METHODS[self.method].title} step{'' if self.num_steps == 1 else 's'}"

    def __call__(
        self,
        denoise: Denoise,
        noise: Tensor,
        condition: Condition,
        *,
        step_noise: StepNoise | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Samples `[N, ...]` float32 from standard-normal `noise` `[N, ...]`; the state is kept in float64.

        `step_noise` is for a stochastic method, and only for it: from `draw.noise_by_step` an image gets the same noise
        whatever batch it is in. `on_step` is called with the number of finished steps. Raises SolverError for a denoiser
        that cannot be called, step noise that is missing, not asked for or of another shape, noise that is no finite float
        tensor (float64 is kept), conditions of another number, and samples that are not finite.
        """
        if not callable(denoise):
            raise SolverError(f"the denoiser is {checks.shown(denoise)}; give a function of (x, sigma, condition).")
        _check_noise(noise, condition)
        self._check_step_noise(step_noise)

        def denoised(x: Tensor, sigma: Tensor) -> Tensor:
            levels = torch.full((len(x),), float(sigma), dtype=torch.float32, device=x.device)
            return denoise(x.float(), levels, condition).double()

        def churned(step: int, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
            assert self.churn is not None  # __post_init__
            assert step_noise is not None  # checked above
            if not self.churn.sigma_low <= float(sigma) <= self.churn.sigma_high:
                return x, sigma
            raised = sigma * (1 + min(self.churn.amount / self.num_steps, math.sqrt(2) - 1))
            fresh = _fresh(step_noise, step, x)
            return x + (raised**2 - sigma**2).sqrt() * self.churn.noise_scale * fresh, raised

        sigmas = karras_sigmas(self.num_steps, self.sigma_min, self.sigma_max, self.rho).to(noise.device)
        state = noise.double() * sigmas[0]
        states = METHODS[self.method].walk(Problem(state, sigmas, denoised, churned))
        for finished in range(1, self.num_steps + 1):
            state = next(states)
            if on_step is not None:
                on_step(finished)
        samples = state.float()
        if bad := checks.num_not_finite(samples):
            raise SolverError(
                f"{bad} of {len(samples)} samples of {self.name} are not finite; take more steps or a narrower range of "
                "noise, or check the denoiser's weights."
            )
        return samples

    def _check_step_noise(self, step_noise: StepNoise | None) -> None:
        if self.is_stochastic and not callable(step_noise):
            what = "without any" if step_noise is None else f"with {checks.shown(step_noise)}"
            raise SolverError(
                f"{self.name} adds fresh noise in every step and was called {what}; give it "
                "step_noise=noise_by_step(seeds, noise.shape[1:]) of msd.diffusion.draw, a seed an image."
            )
        if not self.is_stochastic and step_noise is not None:
            raise SolverError(f"{self.name} adds no noise; call it without step_noise, or choose heun-sde.")


def _check_noise(noise: Tensor, condition: Condition) -> None:
    if not isinstance(noise, Tensor) or noise.ndim == 0 or not noise.is_floating_point():
        raise SolverError(
            f"noise is {checks.shown(noise)}, not floats [N, ...]; give standard normals, e.g. of torch.randn."
        )
    if bad := checks.num_not_finite(noise):
        raise SolverError(f"{bad} of {len(noise)} samples of noise are not finite; give standard normals.")
    if isinstance(condition, Tensor) and condition.shape[:1] != noise.shape[:1]:
        raise SolverError(f"conditions have shape {tuple(condition.shape)} for {len(noise)} samples; give one a sample.")


def _fresh(step_noise: StepNoise, step: int, x: Tensor) -> Tensor:
    fresh = step_noise(step)
    if not isinstance(fresh, Tensor) or fresh.shape != x.shape or not fresh.is_floating_point():
        raise SolverError(
            f"the noise of step {step} is {checks.shown(fresh)}, not floats of shape {tuple(x.shape)}; give step_noise the "
            "seeds of these images, one each."
        )
    return fresh.to(x)
