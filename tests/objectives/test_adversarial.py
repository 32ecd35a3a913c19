"""The GAN losses against closed forms: log likelihoods, their slopes, R1 of a linear discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.objectives.adversarial import (
    accuracy,
    approximate_r1,
    carrying,
    discriminator_loss,
    generator_loss,
    mean_norm,
)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_losses_are_negative_log_likelihoods_with_known_slopes(real: float, fake: float) -> None:
    real_logit, fake_logit = (torch.tensor([value], dtype=torch.float32, requires_grad=True) for value in (real, fake))

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    loss = discriminator_loss(real_logit, fake_logit)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-real)) + math.log1p(math.exp(fake)), rel=1e-4, abs=1e-6)
    slopes = torch.autograd.grad(loss, [real_logit, fake_logit])
    assert slopes[0].item() == pytest.approx(-sigmoid(-real), rel=1e-4, abs=1e-7)
    assert slopes[1].item() == pytest.approx(sigmoid(fake), rel=1e-4, abs=1e-7)
    (slope,) = torch.autograd.grad(generator_loss(fake_logit), fake_logit)
    assert slope.item() == pytest.approx(-sigmoid(-fake), rel=1e-4, abs=1e-7)


def test_a_guess_costs_ln_2_an_answer() -> None:
    zeros = torch.zeros(3)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zeros).item() == pytest.approx(math.log(2))
    assert accuracy(zeros, True) == accuracy(zeros, False) == 0.5


def test_the_student_s_gradient_is_the_chain_rule_by_hand() -> None:
    """A linear discriminator l = w.x: each sample's share of the loss moves it along w by sigmoid(-l) / N."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(5, 3, generator=generator).requires_grad_()
    weights = torch.randn(3, generator=generator)
    logits = samples @ weights
    (gradient,) = torch.autograd.grad(generator_loss(logits), samples)
    torch.testing.assert_close(gradient, -torch.sigmoid(-logits.detach())[:, None] * weights / 5)


def test_approximate_r1_of_a_linear_discriminator_is_its_squared_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    images, noise, weights = torch.randn(20000, 4, generator=generator), torch.randn(20000, 4, generator=generator), 2.0
    penalty = approximate_r1(images.sum(1) * weights, (images + 0.1 * noise).sum(1) * weights)
    assert penalty.item() == pytest.approx(0.1**2 * 4 * weights**2, rel=0.03)
    assert approximate_r1(images, images).item() == 0


def test_accuracy_counts_the_right_side() -> None:
    logits = torch.tensor([3.0, 0.1, -0.2, 0.0])
    assert accuracy(logits, True).item() == pytest.approx(2.5 / 4)
    assert accuracy(logits, False).item() == pytest.approx(1.5 / 4)


def test_a_carried_gradient_reaches_what_made_the_samples() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    inputs = torch.tensor([[1.0, 3.0]])
    samples, gradient = weight * inputs, torch.tensor([[0.5, -1.0]])
    loss = carrying(torch.tensor(7.0), samples, gradient)
    assert loss.item() == 7.0
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(0.5 * 1 - 1 * 3)
    assert mean_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).item() == pytest.approx(3.0)
