"""Solvers against the exact probability-flow ODE of a Gaussian, whose paths are known in closed form.

For data N(mean, s^2) the ODE moves x(sigma) - mean in proportion to sqrt(s^2 + sigma^2).
"""

import math
from itertools import pairwise

import pytest
import torch

from msd.diffusion.noise import karras_sigmas
from msd.diffusion.solvers import Churn, Solver, one_step
from msd.errors import SolverError

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


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_global_error_falls_with_the_method_order(method, order):
    """Doubling the steps divides the error by 2^order: slope within 0.15 of 1 for Euler and of 2 for Heun."""
    errors = [error_of_ode_part(method, num) for num in (16, 32, 64)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([order] * 2, abs=0.15)


def test_heun_reaches_the_exact_sample():
    """72 Heun steps over EDM's whole noise range end within 0.5% of the ODE's exact sample at noise 0."""
    noise = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    samples = Solver("heun", 72)(GaussianDenoiser(), noise, labels(64))
    exact = MEAN + DEVIATION / math.sqrt(DEVIATION**2 + 80**2) * (80 * noise - MEAN)
    assert samples.dtype == torch.float32
    torch.testing.assert_close(samples, exact, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_a_point_mass_is_reached_exactly(method, num_steps):
    """With one data point the ODE's paths are straight lines, so any solver with any number of steps is exact."""
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    samples = Solver(method, num_steps)(GaussianDenoiser(deviation=0.0), noise, labels(5))
    torch.testing.assert_close(samples, torch.full((5, 3), MEAN), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "num_steps", "cost"), [("euler", 1, 1), ("euler", 9, 9), ("heun", 1, 1), ("heun", 18, 35)]
)
@pytest.mark.parametrize("churn", [None, Churn(5.0)])
def test_function_evaluations_are_as_declared(method, num_steps, cost, churn):
    """Counted denoiser calls equal num_function_evaluations: N for Euler, 2N - 1 for Heun; churn adds none."""
    denoiser, solver, finished = GaussianDenoiser(), Solver(method, num_steps, churn=churn), []
    solver(denoiser, torch.ones(2, 2), labels(2), generator=torch.Generator().manual_seed(0), on_step=finished.append)
    assert len(denoiser.levels) == solver.num_function_evaluations == cost
    assert finished == list(range(1, num_steps + 1))
    assert solver.name == f"{method}{num_steps}"


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


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("churn", [Churn(0.0), Churn(10.0, sigma_low=200.0), Churn(10.0, sigma_high=1e-4)])
def test_churn_of_nothing_is_deterministic(method, churn):
    """Amount 0, or a churn range without any grid level, gives exactly the deterministic sample."""
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    plain = Solver(method, 5)(GaussianDenoiser(), noise, labels(4))
    churned = Solver(method, 5, churn=churn)(
        GaussianDenoiser(), noise, labels(4), generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(plain, churned)


@pytest.mark.parametrize(("amount", "gamma"), [(1.0, 0.25), (40.0, math.sqrt(2) - 1)])
def test_churn_raises_the_noise_level_inside_its_range(amount, gamma):
    """Levels in the range rise by 1 + min(amount / N, sqrt(2) - 1), the others stay (EDM, Algorithm 2)."""
    denoiser = GaussianDenoiser()
    solver = Solver("euler", 4, 1.0, 128.0, churn=Churn(amount, sigma_low=2.0, sigma_high=100.0))
    solver(denoiser, torch.ones(1, 1), labels(1), generator=torch.Generator().manual_seed(0))
    high, upper, lower, low = karras_sigmas(4, 1.0, 128.0)[:-1].tolist()
    assert denoiser.levels == pytest.approx([high, upper * (1 + gamma), lower * (1 + gamma), low], rel=1e-6)


def test_churned_sampling_keeps_the_gaussian():
    """Added and removed noise balance: mean and deviation stay the data's, within 5 standard errors (and step error)."""
    num = 20000
    noise = torch.randn(num, 1, generator=torch.Generator().manual_seed(3))
    solver = Solver("heun", 40, 0.02, 20.0, churn=Churn(amount=10.0))
    run = [
        solver(GaussianDenoiser(), noise, labels(num), generator=torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)
    ]
    assert float(run[0].mean()) == pytest.approx(MEAN, abs=5 * DEVIATION / math.sqrt(num) + 0.005)
    assert float(run[0].std()) == pytest.approx(DEVIATION, abs=5 * DEVIATION / math.sqrt(2 * num) + 0.005)
    assert torch.equal(run[0], run[1])
    assert not torch.equal(run[0], run[2])


def test_churn_without_a_generator_is_refused():
    """It would draw from the process's global stream, and nobody could repeat the samples."""
    solver = Solver("heun", 4, 0.02, 20.0, churn=Churn(amount=10.0))
    with pytest.raises(SolverError, match=r"heun4 with churn draws fresh noise; give it generator="):
        solver(GaussianDenoiser(), torch.zeros(2, 1), labels(2))


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
