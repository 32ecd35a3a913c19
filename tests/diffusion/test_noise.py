"""Noise levels: the Karras grid and the laws that training draws from."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from msd.diffusion.draw import Draw, Slice
from msd.diffusion.noise import KarrasLaw, LogNormalLaw, karras_sigmas

NUM = 20000


def seeded(seed=0):
    return Draw(seed, "test")


@given(st.integers(2, 64), st.floats(1e-3, 10), st.floats(1e-3, 200), st.floats(1, 10))
def test_grid_falls_from_sigma_max_to_sigma_min_to_zero(num_steps, sigma_min, sigma_max, rho):
    """sigma_max first, sigma_min at index num_steps - 1, 0 last, strictly decreasing, uniform in sigma^(1/rho)."""
    assume(sigma_min * 1.01 < sigma_max)
    grid = karras_sigmas(num_steps, sigma_min, sigma_max, rho)
    assert grid.shape == (num_steps + 1,)
    assert grid.dtype == torch.float64
    assert float(grid[0]) == pytest.approx(sigma_max, rel=1e-9)
    assert float(grid[num_steps - 1]) == pytest.approx(sigma_min, rel=1e-9)
    assert float(grid[-1]) == 0
    assert bool((grid.diff() < 0).all())
    steps = (grid[:-1] ** (1 / rho)).diff()
    torch.testing.assert_close(steps, torch.full_like(steps, float(steps[0])), rtol=1e-6, atol=1e-9)


def test_grid_known_value():
    """rho 7 between 1 = 1^7 and 128 = 2^7: the middle level is 1.5^7 = 17.0859375."""
    assert karras_sigmas(3, 1.0, 128.0).tolist() == pytest.approx([128, 17.0859375, 1, 0], rel=1e-12)


def test_grid_of_one_step_goes_straight_to_zero():
    """One step is from sigma_max to 0, without sigma_min."""
    assert karras_sigmas(1, 0.002, 80.0).tolist() == [80, 0]


def test_lognormal_law_has_its_moments():
    """ln sigma is N(mean, deviation^2): both moments within 5 standard errors, and the whole law by Kolmogorov-Smirnov."""
    logs = LogNormalLaw(mean=-0.7, deviation=1.5).sample(NUM, seeded()).double().log()
    assert float(logs.mean()) == pytest.approx(-0.7, abs=5 * 1.5 / math.sqrt(NUM))
    assert float(logs.std()) == pytest.approx(1.5, abs=5 * 1.5 / math.sqrt(2 * NUM))
    assert stats.kstest(logs.numpy(), stats.norm(-0.7, 1.5).cdf).pvalue > 1e-4


def test_karras_law_is_uniform_in_root_space_and_bounded():
    """sigma^(1/rho) is uniform between the ends' roots, and no draw leaves [sigma_min, sigma_max]."""
    low, high, rho = 0.02, 20.0, 7.0
    draws = KarrasLaw(low, high, rho).sample(NUM, seeded()).double()
    assert float(draws.min()) >= low * (1 - 1e-5)
    assert float(draws.max()) <= high * (1 + 1e-5)
    roots = draws ** (1 / rho)
    start, width = low ** (1 / rho), high ** (1 / rho) - low ** (1 / rho)
    assert float(roots.mean()) == pytest.approx(start + width / 2, abs=5 * width / math.sqrt(12 * NUM))
    assert stats.kstest(roots.numpy(), stats.uniform(start, width).cdf).pvalue > 1e-4


def test_default_laws_are_the_papers():
    """EDM trains with ln sigma ~ N(-1.2, 1.2^2); DMD matches on 0.002 to 80 with rho 7."""
    assert LogNormalLaw() == LogNormalLaw(mean=-1.2, deviation=1.2)
    assert KarrasLaw() == KarrasLaw(sigma_min=0.002, sigma_max=80.0, rho=7.0)


@pytest.mark.parametrize("law", [LogNormalLaw(), KarrasLaw()])
def test_laws_are_reproducible_from_the_draw(law):
    """The same draw gives the same float32 levels; another seed, or going on within the step, gives others."""
    draw = seeded(3)
    first = law.sample(8, draw)
    assert first.dtype == torch.float32
    assert first.shape == (8,)
    assert torch.equal(first, law.sample(8, seeded(3)))
    assert not torch.equal(first, law.sample(8, draw))
    assert not torch.equal(first, law.sample(8, seeded(4)))


@pytest.mark.parametrize("law", [LogNormalLaw(), KarrasLaw()])
def test_each_process_gets_its_rows_of_the_global_levels(law):
    """Two ranks' levels, one after the other, are those of one process."""
    ranks = [law.sample(8, Draw(3, "test", slice=Slice(rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat(ranks), law.sample(8, seeded(3)))
