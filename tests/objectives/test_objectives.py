"""The pure losses against closed forms: Gaussian teacher and critic, and discrete data with a countable posterior."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.objectives.denoising import denoising_loss, edm_weight, unweighted_denoising_loss
from msd.objectives.dm import dm_gradient, dm_loss
from msd.objectives.regression import regression_loss


def gaussian_denoiser(x, sigma, mean, deviation):
    return mean + deviation**2 / (deviation**2 + sigma**2) * (x - mean)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.2, 2), st.floats(0.05, 20))
def test_dm_gradient_of_gaussians(student_mean, teacher_mean, deviation, sigma):
    """Teacher N(m_t, s^2), critic N(m_s, s^2): (m_s - m_t) sigma^2 / (s^2 + sigma^2), over mean|x - teacher's x0|."""
    x = student_mean + deviation * torch.randn(6, 1, 4, 4, generator=seeded(), dtype=torch.float64)
    noised = x + sigma * torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)
    teacher = gaussian_denoiser(noised, sigma, teacher_mean, deviation)
    critic = gaussian_denoiser(noised, sigma, student_mean, deviation)
    difference = (student_mean - teacher_mean) * sigma**2 / (deviation**2 + sigma**2)
    distance = (x - teacher).abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = (difference / distance).expand(x.shape).float()
    torch.testing.assert_close(dm_gradient(x, teacher, critic), expected, rtol=1e-3, atol=1e-5)


@given(st.floats(0.01, 100))
def test_dm_gradient_is_free_of_the_data_scale(scale):
    """Scaling all images scales numerator and normaliser alike, so the gradient stays."""
    x, teacher, critic = (torch.randn(3, 2, generator=seeded(seed)) for seed in range(3))
    torch.testing.assert_close(
        dm_gradient(scale * x, scale * teacher, scale * critic), dm_gradient(x, teacher, critic), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize(("start", "goal"), [(-2.0, 1.0), (3.0, 0.5)])
def test_descending_the_dm_loss_moves_the_student_to_the_teacher(start, goal):
    """Gradient descent on a student's mean, with the exact critic of each moment, ends at the teacher's mean."""
    mean = torch.tensor([start], requires_grad=True)
    optimiser = torch.optim.SGD([mean], lr=0.2)
    generator, distances = seeded(), []
    for _ in range(150):
        x = mean + 0.5 * torch.randn(256, 1, generator=generator)
        sigma = torch.rand(256, 1, generator=generator) * 2 + 0.1
        noised = x.detach() + sigma * torch.randn(256, 1, generator=generator)
        teacher = gaussian_denoiser(noised, sigma, goal, 0.5)
        critic = gaussian_denoiser(noised, sigma, float(mean.detach()), 0.5)
        optimiser.zero_grad()
        dm_loss(x, dm_gradient(x.detach(), teacher, critic)).backward()
        optimiser.step()
        distances.append(abs(float(mean.detach()) - goal))
    assert distances[0] < abs(start - goal)
    assert distances[-1] < 0.02


@pytest.mark.parametrize("shape", [(4, 2), (3, 1, 8, 8)])
def test_autograd_of_dm_loss_is_the_gradient_over_numel(shape):
    """d dm_loss / d student_x0 = gradient / numel; nothing flows into the gradient itself."""
    x = torch.randn(shape, generator=seeded(), requires_grad=True)
    gradient = torch.randn(shape, generator=seeded(1), requires_grad=True)
    loss = dm_loss(x, gradient)
    loss.backward()
    torch.testing.assert_close(x.grad, gradient.detach() / x.numel(), rtol=1e-4, atol=1e-8)
    assert gradient.grad is None
    assert loss.item() == pytest.approx(float((gradient.detach() ** 2).mean() / 2), rel=1e-5)


def test_dm_gradient_floor():
    """Where student and teacher agree the normaliser is the floor, not zero."""
    x, critic = torch.zeros(2, 3), torch.full((2, 3), 0.5)
    torch.testing.assert_close(dm_gradient(x, x, critic, floor=0.25), torch.full((2, 3), 2.0))
    torch.testing.assert_close(dm_gradient(x, x, critic), torch.full((2, 3), 0.5e5))
    assert torch.equal(dm_gradient(x, x, x), torch.zeros(2, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_sample_that_is_not_finite_gets_no_gradient(which, bad):
    """One bad element zeroes (at most) its own sample's gradient; the other samples keep theirs."""
    inputs = [torch.randn(3, 1, 2, 2, generator=seeded(seed)) for seed in range(3)]
    clean = dm_gradient(*inputs)
    inputs[which] = inputs[which].clone()
    inputs[which][1, 0, 1, 1] = bad
    gradient = dm_gradient(*inputs)
    assert torch.equal(gradient[1], torch.zeros(1, 2, 2))
    assert torch.equal(gradient[[0, 2]], clean[[0, 2]])
    assert bool((clean != 0).all())


def test_dm_gradient_is_float32_for_half_inputs():
    """bfloat16 network outputs are subtracted in float32."""
    inputs = [torch.randn(2, 4, generator=seeded(seed)).bfloat16() for seed in range(3)]
    gradient = dm_gradient(*inputs)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, dm_gradient(*[value.float() for value in inputs]))


@given(st.floats(0.01, 50), st.floats(0.1, 2))
def test_edm_weight_closed_form(sigma, sigma_data):
    """(sigma^2 + sd^2) / (sigma sd)^2."""
    weight = float(edm_weight(torch.tensor(sigma, dtype=torch.float64), sigma_data))
    assert weight == pytest.approx((sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2, rel=1e-9)


def test_denoising_loss_by_hand():
    """sigma 1 and 2 with sd 1 weigh 2 and 1.25; squared errors 1, 4, 9, 0 give (2 * 5 + 1.25 * 9) / 4."""
    estimate, target = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.zeros(2, 2)
    loss = denoising_loss(estimate, target, torch.tensor([1.0, 2.0]), sigma_data=1.0)
    assert loss.item() == pytest.approx((2 * 5 + 1.25 * 9) / 4, rel=1e-6)


def test_denoising_loss_does_not_differentiate_its_target():
    """The gradient reaches the estimate, 2 lambda (estimate - target) / numel, and never the target."""
    estimate = torch.tensor([[1.0, -2.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.0]], requires_grad=True)
    denoising_loss(estimate, target, torch.tensor([0.5]), sigma_data=0.5).backward()
    torch.testing.assert_close(estimate.grad, 8 * torch.tensor([[0.5, -2.0]]))
    assert target.grad is None


def discrete_world():
    """All (target, x) of targets {0, 1} and noise {-1, 0, 1}, each equally likely, with x = target + noise."""
    target = torch.tensor([0.0, 0, 0, 1, 1, 1], dtype=torch.float64)
    return target, target + torch.tensor([-1.0, 0, 1, -1, 0, 1], dtype=torch.float64)


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.floats(0.1, 10))
def test_denoising_loss_is_least_at_the_posterior_mean(table, sigma):
    """A denoiser given by its value at x = -1, 0, 1, 2: E[target | x] = 0, 1/2, 1/2, 1 is stationary and none is better."""
    target, x = discrete_world()

    def loss(values):
        return denoising_loss(values[(x + 1).long()][:, None], target[:, None], torch.full((6,), sigma), sigma_data=0.5)

    posterior = torch.tensor([0.0, 0.5, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    best = loss(posterior)
    best.backward()
    weight = sigma**-2 + 4
    torch.testing.assert_close(posterior.grad, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-5)
    excess = torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64) / 6 * (torch.tensor(table) - posterior.detach()) ** 2
    other = float(loss(torch.tensor(table, dtype=torch.float64)))
    assert other - float(best) == pytest.approx(weight * float(excess.sum()), rel=1e-4, abs=1e-5 * weight)


@pytest.mark.parametrize("shape", [(4, 2), (2, 1, 4, 4)])
def test_regression_gradient(shape):
    """d loss / d student = 2 (x - y) / numel; the teacher's sample gets none."""
    x = torch.randn(shape, generator=seeded(), requires_grad=True)
    y = torch.randn(shape, generator=seeded(1), requires_grad=True)
    loss = regression_loss(x, y)
    loss.backward()
    torch.testing.assert_close(x.grad, 2 * (x - y).detach() / x.numel())
    assert y.grad is None
    assert loss.item() == pytest.approx(((x - y) ** 2).sum().item() / x.numel(), rel=1e-5)


def test_the_unweighted_critic_loss_is_the_edm_one_where_its_weight_is_1():
    """1/sigma^2 + 1/sigma_data^2 = 1 at sigma^2 = sigma_data^2 = 2."""
    estimate, target = (torch.randn(3, 2, generator=seeded(seed)) for seed in range(2))
    sigma = torch.full((3,), 2**0.5)
    weighted = denoising_loss(estimate, target, sigma, 2**0.5)
    torch.testing.assert_close(unweighted_denoising_loss(estimate, target), weighted)
