"""The denoiser contract: EDM, VP and flow networks turned into one and the same E[x0 | x]; guidance; copies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msd.diffusion.denoiser import (
    PARAMETERISATIONS,
    Denoiser,
    DenoiserSpec,
    EDMParameterisation,
    FlowParameterisation,
    VPParameterisation,
    condition_to,
    guided,
)
from msd.objectives.denoising import edm_weight

SCHEDULE = tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)).tolist())
"""DDPM's linear schedule: alpha^2 at timesteps 0 to 999, noise levels about 0.01 to 157."""

sigmas = st.lists(st.floats(0.02, 100), min_size=3, max_size=3)
means = st.floats(-2, 2)
deviations = st.floats(0.05, 3)


class Raw(nn.Module):
    """A network given as a function; remembers what it was called with."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, scaled, noise, condition):
        self.seen = (scaled, noise, condition)
        return self.function(scaled, noise[:, None] if scaled.ndim == 2 else noise[:, None, None, None])


def gaussian_truth(x, sigma, mean, deviation):
    """E[x0 | x0 + sigma n = x] for x0 ~ N(mean, deviation^2)."""
    return mean + deviation**2 / (deviation**2 + sigma**2) * (x - mean)


def expectations(x_t, signal, noise, mean, deviation):
    """E[x0 | x_t] and E[n | x_t] for x_t = signal x0 + noise n, x0 ~ N(mean, deviation^2), n ~ N(0, 1)."""
    residual = (x_t - signal * mean) / (signal**2 * deviation**2 + noise**2)
    return mean + signal * deviation**2 * residual, noise * residual


def assert_is_gaussian_denoiser(parameterisation, network, levels, mean, deviation):
    sigma = torch.tensor(levels, dtype=torch.float64)
    direction = torch.tensor([[0.3, -1.2], [1.5, 0.1], [-0.7, 0.9]], dtype=torch.float64)
    x = mean + direction * (sigma**2 + deviation**2).sqrt()[:, None]
    denoiser = Denoiser(Raw(network), DenoiserSpec((2,), 1, parameterisation))
    expected = gaussian_truth(x, sigma[:, None], mean, deviation)
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(3, dtype=torch.long)), expected.float(), rtol=1e-4, atol=1e-5)


@given(st.floats(1e-3, 1e3), st.floats(0.1, 5))
def test_edm_normalises_input_variance_and_loss_weight(sigma, sigma_data):
    """c_in^2 (sigma^2 + sd^2) = 1 and 1 / c_out^2 is the EDM loss weight, at every noise level."""
    level = torch.tensor([sigma], dtype=torch.float64)
    scalings = EDMParameterisation(sigma_data).scalings(level)
    assert float(scalings.c_in**2 * (level**2 + sigma_data**2)) == pytest.approx(1, rel=1e-9)
    assert float(scalings.c_out**-2) == pytest.approx(float(edm_weight(level, sigma_data)), rel=1e-9)
    assert float(scalings.c_noise) == pytest.approx(math.log(sigma) / 4, abs=1e-9)


def test_edm_without_noise_returns_the_input():
    """sigma -> 0: c_skip -> 1 and c_out -> 0, so the denoiser is the identity whatever the network says."""
    sigma, x = torch.full((4,), 1e-7), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    scalings = EDMParameterisation(0.5).scalings(sigma)
    torch.testing.assert_close(scalings.c_skip, torch.ones(4))
    torch.testing.assert_close(scalings.c_out, sigma, rtol=1e-5, atol=0)
    denoiser = Denoiser(Raw(lambda scaled, noise: 3 + scaled.sin()), DenoiserSpec((2,), 1, EDMParameterisation(0.5)))
    torch.testing.assert_close(denoiser(x, sigma, torch.zeros(4, dtype=torch.long)), x)


def test_edm_under_all_noise_relies_on_the_network():
    """sigma -> inf: c_skip -> 0 like sd^2 / sigma^2, and c_out -> sd."""
    scalings = EDMParameterisation(0.5).scalings(torch.tensor([1e6], dtype=torch.float64))
    assert float(scalings.c_skip) == pytest.approx(0.25e-12, rel=1e-6)
    assert float(scalings.c_out) == pytest.approx(0.5, rel=1e-9)


@given(sigmas, st.floats(0.1, 3))
def test_edm_with_zero_network_is_optimal_for_standardised_gaussian(levels, sigma_data):
    """For data N(0, sd^2) the preconditioning alone is the posterior mean: the network has nothing to add."""
    assert_is_gaussian_denoiser(
        EDMParameterisation(sigma_data), lambda scaled, noise: torch.zeros_like(scaled), levels, 0.0, sigma_data
    )


@given(sigmas, means, deviations, st.floats(0.2, 2))
def test_edm_exact_prediction_gives_gaussian_denoiser(levels, mean, deviation, sigma_data):
    """A network that knows only c_in x and c_noise, and predicts EDM's target exactly, gives the posterior mean."""

    def network(scaled, noise):
        sigma = (4 * noise).exp()
        total = sigma**2 + sigma_data**2
        x = scaled * total.sqrt()
        truth = gaussian_truth(x, sigma, mean, deviation)
        return (truth - sigma_data**2 / total * x) * total.sqrt() / (sigma * sigma_data)

    assert_is_gaussian_denoiser(EDMParameterisation(sigma_data), network, levels, mean, deviation)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@given(sigmas, means, deviations)
@settings(max_examples=50)
def test_vp_exact_prediction_gives_gaussian_denoiser(prediction, levels, mean, deviation):
    """A VP network that predicts eps, v or x0 exactly from (x_t, t) gives the posterior mean in sigma space."""
    squares = np.array(SCHEDULE)
    log_levels = 0.5 * np.log((1 - squares) / squares)

    def network(x_t, time):
        sigma = torch.from_numpy(np.exp(np.interp(time.numpy(), np.arange(1000), log_levels)))
        alpha, noise_level = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        clean, noise = expectations(x_t, alpha, noise_level, mean, deviation)
        return {"eps": noise, "x0": clean, "v": alpha * noise - noise_level * clean}[prediction]

    assert_is_gaussian_denoiser(VPParameterisation(prediction, SCHEDULE), network, levels, mean, deviation)


@pytest.mark.parametrize("time_scale", [1.0, 1000.0])
@given(sigmas, means, deviations)
@settings(max_examples=50)
def test_flow_exact_velocity_gives_gaussian_denoiser(time_scale, levels, mean, deviation):
    """A flow network that predicts E[n - x0 | (1 - t) x0 + t n] exactly gives the posterior mean in sigma space."""

    def network(x_t, scaled_time):
        time = scaled_time / time_scale
        clean, noise = expectations(x_t, 1 - time, time, mean, deviation)
        return noise - clean

    assert_is_gaussian_denoiser(FlowParameterisation(time_scale), network, levels, mean, deviation)


def test_vp_timestep_inverts_the_schedule():
    """Each integer timestep's own noise level maps back to it, and levels outside the schedule to its ends."""
    squares = torch.tensor(SCHEDULE, dtype=torch.float64)
    levels = ((1 - squares) / squares).sqrt()
    parameterisation = VPParameterisation("eps", SCHEDULE)
    torch.testing.assert_close(parameterisation.timestep(levels), torch.arange(1000.0).double(), rtol=0, atol=1e-7)
    outside = torch.tensor([0.0, 1e-6, float(levels[0]) / 2, float(levels[-1]) * 2, 1e9], dtype=torch.float64)
    assert parameterisation.timestep(outside).tolist() == [0, 0, 0, 999, 999]
    between = (levels[41] * levels[42]).sqrt()[None]
    assert float(parameterisation.timestep(between)) == pytest.approx(41.5, abs=1e-7)


@pytest.mark.parametrize("shape", [(5, 2), (3, 1, 8, 8), (2, 3, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["edm", "vp", "flow"])
def test_output_is_float32_of_the_input_shape(name, dtype, shape):
    """Whatever the parameterisation and the dtype of x, the estimate is float32 `[N, ...]`; condition passes untouched."""
    arguments = {"vp": ("eps", SCHEDULE)}.get(name, ())
    raw = Raw(lambda scaled, noise: scaled + noise)
    denoiser = Denoiser(raw, DenoiserSpec(shape[1:], 10, PARAMETERISATIONS[name](*arguments)))
    condition = torch.arange(shape[0])
    sigma = torch.linspace(0.1, 10, shape[0], dtype=dtype)
    estimate = denoiser(torch.ones(shape, dtype=dtype), sigma, condition)
    assert estimate.dtype == torch.float32
    assert estimate.shape == shape
    scaled, noise, passed = raw.seen
    assert scaled.shape == shape
    assert noise.shape == (shape[0],)
    assert passed is condition


def test_samples_of_a_batch_use_their_own_noise_level():
    """A batch of mixed noise levels gives what each sample gives alone."""
    denoiser = Denoiser(Raw(lambda scaled, noise: scaled * noise), DenoiserSpec((1, 2, 2), 1))
    x, sigma, condition = torch.arange(12.0).reshape(3, 1, 2, 2), torch.tensor([0.1, 1, 50]), torch.zeros(3).long()
    alone = torch.cat([denoiser(x[i : i + 1], sigma[i : i + 1], condition[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(denoiser(x, sigma, condition), alone)


def test_num_parameters_counts_the_network():
    """A 2-to-3 linear layer has 6 weights and 3 biases."""
    assert Denoiser(nn.Linear(2, 3), DenoiserSpec((2,), 1)).num_parameters() == 9


def by_class(x, sigma, condition):
    return x * (1 + condition[:, None])


def test_guidance_of_scale_one_is_the_denoiser_itself():
    """Scale 1 costs nothing: the same object comes back."""
    assert guided(by_class, 1.0, torch.zeros_like) is by_class


@given(st.floats(-3, 8))
def test_guidance_is_linear_in_its_scale(scale):
    """D_null + scale (D_condition - D_null): scale 0 is the null estimate, and the scale extrapolates linearly."""
    x, sigma, condition = torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.ones(2), torch.tensor([3, 1])
    null = guided(by_class, 0.0, torch.zeros_like)(x, sigma, condition)
    torch.testing.assert_close(null, x)  # class 0 is the null condition here, and its estimate is x
    result = guided(by_class, scale, torch.zeros_like)(x, sigma, condition)
    torch.testing.assert_close(result, x * (1 + scale * condition[:, None]), rtol=1e-4, atol=1e-5)


class Fourier(nn.Module):
    """A network with random features that its architecture keeps fixed."""

    def __init__(self):
        super().__init__()
        self.features = nn.Parameter(torch.randn(3), requires_grad=False)
        self.layer = nn.Linear(2, 2)


def test_a_copy_trains_what_the_architecture_trains():
    """Of a frozen denoiser, and of a copy of a copy: the layer is to be trained, the features never."""
    original = Denoiser(Fourier(), DenoiserSpec((2,), 1)).train().requires_grad_(False)
    for copied in (original.copy(), original.copy().requires_grad_(True).copy()):
        assert {name for name, value in copied.named_parameters() if value.requires_grad} == {
            "network.layer.weight",
            "network.layer.bias",
        }
        assert not copied.training
    assert not any(value.requires_grad for value in original.parameters())
    assert original.training


def test_a_copy_shares_nothing():
    """Training the copy leaves the original as it was."""
    original = Denoiser(nn.Linear(2, 2), DenoiserSpec((2,), 1))
    before = original.network.weight.clone()
    with torch.no_grad():
        original.copy().network.weight.add_(1)
    assert torch.equal(original.network.weight, before)


def test_a_spec_knows_the_pixels_shape_by_its_codec():
    """Noise need not have the image's shape."""

    class Half:
        def pixel_shape(self, noise_shape):
            return (3, *(2 * size for size in noise_shape[1:]))

    assert DenoiserSpec((4, 8, 8), 1).pixel_shape == (4, 8, 8)
    assert DenoiserSpec((4, 8, 8), 1, codec=Half()).pixel_shape == (3, 16, 16)


def test_conditions_move_as_what_they_are():
    """A tensor stays a tensor, a mapping a mapping."""
    assert torch.equal(condition_to(torch.arange(3), torch.device("cpu")), torch.arange(3))
    moved = condition_to({"text": torch.ones(2, 3)}, torch.device("meta"))
    assert isinstance(moved, dict)
    assert moved["text"].is_meta
