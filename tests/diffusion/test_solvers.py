"""Solvers against the exact probability-flow ODE of a Gaussian, whose paths are known in closed form.

For data N(mean, s^2) the ODE moves x(sigma) - mean in proportion to sqrt(s^2 + sigma^2).
"""

import math
from dataclasses import asdict
from itertools import pairwise
from typing import get_args

import pytest
import torch

from msd.diffusion.draw import image_noise, noise_by_step
from msd.diffusion.evaluations import NUM_EVALUATIONS
from msd.diffusion.noise import karras_sigmas
from msd.diffusion.solvers import METHODS, Churn, MethodName, Solver, one_step
from msd.errors import SolverError
from msd.recipe.words import ODE_METHODS, SOLVER_METHODS
from msd.teachers.analytic import GaussianMixtureTeacher

MEAN, DEVIATION = 0.7, 1.0


class GaussianDenoiser:
    """The exact denoiser of N(MEAN, deviation^2); remembers the noise levels it was asked at."""

    def __init__(self, deviation=DEVIATION):
        self.deviation, self.levels, self.calls = deviation, [], []

    def __call__(self, x, sigma, condition):
        assert x.dtype == torch.float32
        assert sigma.shape == (len(x),)
        assert bool((sigma == sigma[0]).all())
        self.levels.append(float(sigma[0]))
        self.calls.append((x, sigma, condition))
        share = (self.deviation**2 / (self.deviation**2 + sigma.double() ** 2)).reshape(-1, *[1] * (x.ndim - 1))
        return (MEAN + share * (x.double() - MEAN)).float()


def fresh_if_stochastic(solver, shape):
    return noise_by_step(range(2), shape) if solver.is_stochastic else None


def labels(num):
    return torch.zeros(num, dtype=torch.long)


def error_of_ode_part(method, num_intervals, sigma_min=0.1, sigma_max=5.0):
    """Relative error of the walk sigma_max -> sigma_min, the last Euler step to 0 divided out in closed form."""
    solver = Solver(method, num_intervals + 1, sigma_min, sigma_max)
    noise = torch.tensor([[2.0], [-1.0]])
    end = solver(GaussianDenoiser(), noise, labels(2)).double() - MEAN
    last_step = DEVIATION**2 / (DEVIATION**2 + sigma_min**2)
    exact = math.sqrt((DEVIATION**2 + sigma_min**2) / (DEVIATION**2 + sigma_max**2)) * (sigma_max * noise.double() - MEAN)
    return float(((end / last_step - exact) / exact).abs().max())


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("dpmpp2m", 2)])
def test_global_error_falls_with_the_method_order(method, order):
    """Doubling the steps divides the error by 2^order: slopes within 0.15 of 1 for Euler, of 2 for Heun and DPM-Solver++."""
    errors = [error_of_ode_part(method, num) for num in (32, 64, 128)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([order] * 2, abs=0.15)


@pytest.mark.parametrize(
    ("method", "num_steps", "tolerance"), [("heun", 72, 5e-3), ("dpmpp2m", 72, 5e-3), ("euler", 500, 3e-2)]
)
def test_the_exact_sample_is_reached(method, num_steps, tolerance):
    """Over EDM's whole noise range: 72 steps of second order end within 0.5% of the ODE's exact sample at noise 0."""
    noise = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    teacher = GaussianMixtureTeacher(torch.full((1, 1, 1, 4, 4), MEAN), torch.full((1, 1), DEVIATION))
    samples = Solver(method, num_steps)(teacher, noise, labels(64))
    exact = MEAN + DEVIATION / math.sqrt(DEVIATION**2 + 80**2) * (80 * noise - MEAN)
    assert samples.dtype == torch.float32
    torch.testing.assert_close(samples, exact, rtol=tolerance, atol=tolerance)


def test_dpmpp2m_is_better_than_heun_at_equal_cost():
    """Ten evaluations: ten steps of the one, five and a half of the other."""
    assert error_of_ode_part("dpmpp2m", 10) < error_of_ode_part("heun", 5) < error_of_ode_part("euler", 10)


@pytest.mark.parametrize(("method", "num_steps"), [("euler", 6), ("heun", 6), ("heun", 1)])
def test_heun_and_euler_are_the_plain_loops_bit_for_bit(method, num_steps):
    """Pairs and kept measurements hold what these loops made: a table of solvers must not change a bit of it."""
    noise = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    denoiser, sigmas = GaussianDenoiser(), karras_sigmas(num_steps, 0.002, 80.0)

    def slope(x, sigma):
        return (x - denoiser(x.float(), torch.full((8,), float(sigma)), None).double()) / sigma

    x = noise.double() * sigmas[0]
    for sigma, following in pairwise(sigmas):
        first = slope(x, sigma)
        if method == "euler" or following == 0:
            x = x + (following - sigma) * first
        else:
            second = slope(x + (following - sigma) * first, following)
            x = x + (following - sigma) * (first + second) / 2
    assert torch.equal(Solver(method, num_steps)(GaussianDenoiser(), noise, labels(8)), x.float())


def test_dpmpp2m_is_its_formula():
    """Three steps by hand, as Lu et al. (2022) write them: coefficients in exp(-h), h the steps of lambda = -ln(sigma)."""
    noise, denoiser = torch.tensor([[0.4], [-1.3]]), GaussianDenoiser()
    high, middle, low, _ = karras_sigmas(3, 0.5, 4.0).tolist()
    first_step, second_step = math.log(high / middle), math.log(middle / low)

    def denoised(x, sigma):
        return denoiser(x.float(), torch.full((2,), sigma), None).double()

    x = high * noise.double()
    earlier = denoised(x, high)
    x = middle / high * x - math.expm1(-first_step) * earlier
    now, share = denoised(x, middle), second_step / first_step / 2
    x = low / middle * x - math.expm1(-second_step) * ((1 + share) * now - share * earlier)
    samples = Solver("dpmpp2m", 3, 0.5, 4.0)(GaussianDenoiser(), noise, labels(2))
    torch.testing.assert_close(samples, denoised(x, low).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp2m"])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_a_point_mass_is_reached_exactly(method, num_steps):
    """With one data point the ODE's paths are straight lines, so any solver with any number of steps is exact."""
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    samples = Solver(method, num_steps)(GaussianDenoiser(deviation=0.0), noise, labels(5))
    torch.testing.assert_close(samples, torch.full((5, 3), MEAN), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "num_steps", "cost"),
    [
        ("euler", 1, 1),
        ("euler", 9, 9),
        ("heun", 1, 1),
        ("heun", 18, 35),
        ("dpmpp2m", 1, 1),
        ("dpmpp2m", 10, 10),
        ("heun-sde", 18, 35),
    ],
)
def test_function_evaluations_are_as_declared(method, num_steps, cost):
    """Counted denoiser calls equal num_function_evaluations: N for Euler and DPM-Solver++, 2N - 1 for both Heuns."""
    denoiser, solver, finished = GaussianDenoiser(), Solver(method, num_steps), []
    solver(denoiser, torch.ones(2, 2), labels(2), step_noise=fresh_if_stochastic(solver, (2,)), on_step=finished.append)
    assert len(denoiser.levels) == solver.num_function_evaluations == cost
    assert finished == list(range(1, num_steps + 1))
    assert solver.name == f"{method}{num_steps}"


def test_the_table_and_the_names_agree():
    """The recipe knows the solvers' names without torch, pairs those of the ODE alone."""
    assert METHODS.keys() == NUM_EVALUATIONS.keys() == set(SOLVER_METHODS) == set(get_args(MethodName))
    assert set(ODE_METHODS) == {name for name, method in METHODS.items() if not method.is_stochastic}
    assert [Solver(*word).description for word in (("heun", 18), ("euler", 1), ("dpmpp2m", 10))] == [
        "18 Heun steps",
        "1 Euler step",
        "10 DPM-Solver++(2M) steps",
    ]


def test_euler_visits_the_karras_grid():
    """The noise levels asked for are the grid without its 0, and the first input is sigma_max * noise."""
    denoiser, condition = GaussianDenoiser(), torch.tensor([4, 2])
    Solver("euler", 6, 0.01, 10.0)(denoiser, torch.tensor([[1.0], [-3.0]]), condition)
    assert denoiser.levels == pytest.approx(karras_sigmas(6, 0.01, 10.0)[:-1].tolist(), rel=1e-6)
    x, _, passed = denoiser.calls[0]
    torch.testing.assert_close(x, torch.tensor([[10.0], [-30.0]]))
    assert passed is condition


def test_state_is_kept_in_float64():
    """Towards the point 0 the state is sigma * noise, which the denoiser sees to one rounding even after 300 steps."""
    seen = []

    def zero(x, sigma, condition):
        seen.append(x)
        return torch.zeros_like(x)

    noise = torch.tensor([[0.3, -1.7, 0.9]])
    Solver("euler", 300)(zero, noise, labels(1))
    exact = (karras_sigmas(300, 0.002, 80.0)[:-1, None] * noise.double()).float()
    torch.testing.assert_close(torch.cat(seen), exact, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("churn", [Churn(0.0), Churn(10.0, sigma_low=200.0, sigma_high=300.0), Churn(10.0, 0.0, 1e-4)])
def test_churn_of_nothing_is_deterministic(churn):
    """Amount 0, or a churn range without any grid level, gives exactly Heun's sample."""
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    plain = Solver("heun", 5)(GaussianDenoiser(), noise, labels(4))
    step_noise = noise_by_step(range(4), (2,))
    churned = Solver("heun-sde", 5, churn=churn)(GaussianDenoiser(), noise, labels(4), step_noise=step_noise)
    assert torch.equal(plain, churned)


@pytest.mark.parametrize(("amount", "gamma"), [(1.0, 0.25), (40.0, math.sqrt(2) - 1)])
def test_churn_raises_the_noise_level_inside_its_range(amount, gamma):
    """Levels in the range rise by 1 + min(amount / N, sqrt(2) - 1), the others stay (EDM, Algorithm 2)."""
    denoiser = GaussianDenoiser()
    solver = Solver("heun-sde", 4, 1.0, 128.0, churn=Churn(amount, sigma_low=2.0, sigma_high=100.0))
    solver(denoiser, torch.ones(1, 1), labels(1), step_noise=noise_by_step([0], (1,)))
    high, upper, lower, low = karras_sigmas(4, 1.0, 128.0)[:-1].tolist()
    expected = [high, upper, upper * (1 + gamma), lower, lower * (1 + gamma), low, low]
    assert denoiser.levels == pytest.approx(expected, rel=1e-6)


def test_churns_defaults_are_edms_for_imagenet():
    assert Solver("heun-sde", 18).churn == Churn(40.0, 0.05, 50.0, 1.003)


def test_measurements_that_are_kept_by_a_solvers_content_stay_valid():
    kept = {"method": "heun", "num_steps": 18, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0, "churn": None}
    assert asdict(Solver("heun", 18)) == kept


@pytest.mark.parametrize("churn", [Churn(10.0, 0.0, math.inf, 1.0), Churn(10.0)])
def test_churned_sampling_keeps_the_gaussian(churn):
    """Added and removed noise balance: mean and deviation stay the data's, within 5 standard errors (and step error).

    EDM's noise_scale of 1.003 is meant for denoisers that are not exact, and widens this one by less than 0.01.
    """
    num = 20000
    noise = image_noise(range(num), (1,))
    samples = Solver("heun-sde", 40, 0.02, 20.0, churn=churn)(
        GaussianDenoiser(), noise, labels(num), step_noise=noise_by_step(range(num), (1,))
    )
    assert float(samples.mean()) == pytest.approx(MEAN, abs=5 * DEVIATION / math.sqrt(num) + 0.005)
    widened = 0.01 if churn.noise_scale > 1 else 0
    assert float(samples.std()) == pytest.approx(DEVIATION, abs=5 * DEVIATION / math.sqrt(2 * num) + 0.005 + widened)


def test_a_churned_image_does_not_depend_on_its_batch():
    """Alone, among others, or in another order: bit for bit the same; another seed gives another image."""
    solver, seeds = Solver("heun-sde", 6), [5, 17, 2**63 - 1, 0]

    def sampled(some, start=None):
        noise = image_noise(some if start is None else start, (1, 4, 4))
        return solver(GaussianDenoiser(), noise, labels(len(some)), step_noise=noise_by_step(some, (1, 4, 4)))

    together = sampled(seeds)
    assert torch.equal(sampled(seeds), together)
    assert torch.equal(sampled(seeds[::-1]), together.flip(0))
    for index, seed in enumerate(seeds):
        assert torch.equal(sampled([seed])[0], together[index])
    assert not torch.equal(sampled([6], start=[5])[0], together[0])


@pytest.mark.parametrize(
    ("method", "step_noise", "message"),
    [
        (
            "heun-sde",
            None,
            r"heun-sde4 adds fresh noise in every step and was called without any; give it step_noise=noise_by",
        ),
        ("heun-sde", torch.zeros(2, 1), r"was called with a Tensor of shape \(2, 1\); give it"),
        (
            "heun-sde",
            noise_by_step([1], (1,)),
            r"the noise of step 0 is a Tensor of shape \(1, 1\), not floats of shape \(2, 1",
        ),
        ("heun-sde", lambda step: torch.zeros(2, 1).long(), r"the noise of step 0 is .*, not floats"),
        ("heun-sde", lambda step: torch.full((2, 1), math.nan), r"2 of 2 samples of heun-sde4 are not finite"),
        ("heun", noise_by_step([1, 2], (1,)), r"heun4 adds no noise; call it without step_noise, or choose heun-sde\."),
    ],
)
def test_step_noise_that_does_not_fit_is_refused(method, step_noise, message):
    with pytest.raises(SolverError, match=message):
        Solver(method, 4, 0.06, 20.0)(GaussianDenoiser(), torch.zeros(2, 1), labels(2), step_noise=step_noise)


def test_one_step_scales_the_noise_and_asks_once():
    """A student sees sigma_init * noise at the constant level sigma_init, and its answer is the sample."""
    denoiser, condition = GaussianDenoiser(), torch.tensor([5, 6, 7])
    noise = torch.tensor([[1.0, 2.0], [0.0, -1.0], [0.5, 0.5]])
    sample = one_step(denoiser, noise, condition, sigma_init=80.0)
    assert len(denoiser.calls) == 1
    x, sigma, passed = denoiser.calls[0]
    assert torch.equal(x, 80 * noise)
    assert sigma.tolist() == [80.0] * 3
    assert passed is condition
    torch.testing.assert_close(sample, MEAN + (80 * noise - MEAN) / (1 + 80**2))
