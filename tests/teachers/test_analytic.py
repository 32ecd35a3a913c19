"""The Gaussian-mixture teacher against single-Gaussian closed form, quadrature, and autograd of its own density."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msd.diffusion.draw import Draw
from msd.teachers.analytic import GaussianMixtureTeacher

MEANS = torch.tensor([[[-2.0], [0.5], [1.5]], [[4.0], [4.5], [-1.0]]], dtype=torch.float64)  # 2 conditions, 3 components
DEVIATIONS = torch.tensor([[0.3, 0.8, 0.2], [1.0, 0.1, 0.5]], dtype=torch.float64)


def planar_teacher():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64) * 2
    return GaussianMixtureTeacher(means, torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.2)


@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(0.002, 80))
def test_one_component_is_the_gaussian_denoiser(mean, deviation, sigma):
    """mean + s^2 / (s^2 + sigma^2) (x - mean), for images too."""
    shape = (1, 2, 2)
    teacher = GaussianMixtureTeacher(torch.full((1, 1, *shape), mean).double(), torch.tensor([[deviation]]).double())
    x = torch.linspace(-5, 5, 12, dtype=torch.float64).reshape(3, *shape)
    estimate = teacher(x, torch.full((3,), sigma, dtype=torch.float64), torch.zeros(3, dtype=torch.long))
    expected = mean + deviation**2 / (deviation**2 + sigma**2) * (x - mean)
    torch.testing.assert_close(estimate, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0, 30.0])
@pytest.mark.parametrize("condition", [0, 1])
def test_mixture_is_the_posterior_mean_by_quadrature(condition, sigma):
    """Integral of x0 p(x0) N(x; x0, sigma^2) over the same without x0, on a fine grid of x0."""
    x = torch.linspace(-6, 8, 15, dtype=torch.float64)
    grid = torch.linspace(-12, 16, 40001, dtype=torch.float64)
    normal = torch.distributions.Normal(MEANS[condition], DEVIATIONS[condition][:, None])
    prior = normal.log_prob(grid).exp().mean(0)
    log_likelihood = -((x[:, None] - grid) ** 2) / (2 * sigma**2)
    weight = prior * (log_likelihood - log_likelihood.amax(1, keepdim=True)).exp()
    expected = torch.trapezoid(weight * grid, grid) / torch.trapezoid(weight, grid)
    teacher = GaussianMixtureTeacher(MEANS, DEVIATIONS)
    labels = torch.full((15,), condition)
    estimate = teacher(x[:, None], torch.full((15,), sigma, dtype=torch.float64), labels)[:, 0]
    torch.testing.assert_close(estimate, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_score_is_the_gradient_of_the_log_density(sigma):
    """(D(x) - x) / sigma^2 = grad log of the mixture whose variances are s^2 + sigma^2 (Tweedie)."""
    teacher = planar_teacher()
    condition = torch.tensor([0, 1, 2, 2, 1, 0])
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).mul(3).requires_grad_()
    total = (teacher.deviations[condition] ** 2 + sigma**2)[..., None]
    components = torch.distributions.Normal(teacher.means[condition], total.sqrt()).log_prob(x[:, None]).sum(-1)
    (score,) = torch.autograd.grad((components.logsumexp(1) - math.log(4)).sum(), x)
    estimate = teacher(x.detach(), torch.full((6,), sigma, dtype=torch.float64), condition)
    torch.testing.assert_close((estimate - x.detach()) / sigma**2, score, rtol=1e-6, atol=1e-8)


def test_limits_of_the_noise():
    """sigma -> 0 leaves x alone; sigma -> inf forgets x and gives the mean of the condition's components."""
    teacher = planar_teacher()
    condition = torch.tensor([0, 1, 2])
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.0], [3.0, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(teacher(x, torch.full((3,), 1e-6).double(), condition), x, rtol=0, atol=1e-8)
    far = teacher(x, torch.full((3,), 1e6).double(), condition)
    torch.testing.assert_close(far, teacher.means.mean(1), rtol=0, atol=1e-4)


def test_points_far_from_all_components_stay_finite():
    """Where every component's likelihood underflows, the nearest (by likelihood) one still decides."""
    means, deviations = torch.tensor([[[-1.0], [1.0]]]), torch.full((1, 2), 0.01)
    x = torch.tensor([[500.0], [-500.0]])
    estimate = GaussianMixtureTeacher(means, deviations)(x, torch.full((2,), 0.01), torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(estimate, torch.tensor([[250.5], [-250.5]]))


def test_contract_of_shape_dtype_and_mixed_batches():
    """Float32 in, float32 out, also with float64 means; each row is denoised under its own level and condition."""
    teacher = planar_teacher()
    assert teacher.num_conditions == 3
    x, sigma, condition = torch.randn(4, 2), torch.tensor([0.1, 1.0, 5.0, 80.0]), torch.tensor([2, 0, 1, 2])
    together = teacher(x, sigma, condition)
    assert together.dtype == torch.float32
    alone = torch.cat([teacher(x[i : i + 1], sigma[i : i + 1], condition[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("condition", [0, 1])
def test_samples_follow_the_mixture(condition):
    """Exact draws: mean and deviation within 5 standard errors, the law by Kolmogorov-Smirnov, repeatable by seed."""
    num = 20000
    teacher = GaussianMixtureTeacher(MEANS, DEVIATIONS)
    labels = torch.full((num,), condition)
    samples = teacher.sample(labels, Draw(7, "test"))
    means, deviations = MEANS[condition, :, 0], DEVIATIONS[condition]
    mean = float(means.mean())
    variance = float((deviations**2 + means**2).mean()) - mean**2
    assert samples.shape == (num, 1)
    assert float(samples.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / num))
    fourth = float(((samples - mean) ** 4).mean())
    assert float(samples.var()) == pytest.approx(variance, abs=5 * math.sqrt((fourth - variance**2) / num))
    pairs = list(zip(means.tolist(), deviations.tolist(), strict=True))
    law = stats.kstest(samples[:, 0].numpy(), lambda x: sum(stats.norm(m, s).cdf(x) for m, s in pairs) / 3)
    assert law.pvalue > 1e-4
    assert torch.equal(samples, teacher.sample(labels, Draw(7, "test")))


def test_samples_of_images_are_isotropic_and_per_condition():
    """Each row is drawn for its own label, with independent noise of one deviation on all pixels."""
    means = torch.stack([torch.full((1, 1, 2, 2), -3.0), torch.full((1, 1, 2, 2), 3.0)])
    teacher = GaussianMixtureTeacher(means, torch.tensor([[0.5], [0.1]]))
    labels = torch.tensor([0, 1]).repeat(5000)
    samples = teacher.sample(labels, Draw(0, "test"))
    assert samples.shape == (10000, 1, 2, 2)
    first = samples[labels == 0].flatten(1)
    torch.testing.assert_close(first.T.cov(), 0.25 * torch.eye(4), rtol=0, atol=0.025)
    torch.testing.assert_close(samples[labels == 1].mean(0), torch.full((1, 2, 2), 3.0), rtol=0, atol=0.01)
