"""Roles: rates are functions of the updates done, idle roles are frozen, only what the network trains is trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from builders import tiny_denoiser
from msd.recipe import RoleSection
from msd.training.bundle import Bundle
from msd.training.engine import Engine

ENGINE = Engine.on("cpu")
SETTINGS = RoleSection(learning_rate=1.0, warmup_updates=3, final_rate=0.1, adam_beta1=0.9, clip_norm=10.0, ema_decay=None)


def settings(**changes) -> RoleSection:
    return SETTINGS.model_copy(update=changes)


def test_learning_rate_warms_up_then_falls_along_a_cosine() -> None:
    role = ENGINE.role(nn.Linear(1, 1), SETTINGS, 100)
    rates = []
    for role.num_updates in (0, 1, 3, 50, 100):
        rates.append(role.rate())
    assert rates[0] == pytest.approx(0.25, rel=1e-3)
    assert rates[1] == pytest.approx(0.5, rel=1e-2)
    assert rates[2] == pytest.approx(1.0, rel=1e-2)
    assert rates[3] == pytest.approx(0.55)
    assert rates[4] == pytest.approx(0.1)


def test_a_loss_through_an_idle_role_leaves_nothing_on_it() -> None:
    """ADM's student descends through the critic's features: the critic must not find those gradients in its own turn."""
    student, critic = (ENGINE.role(nn.Linear(2, 2), settings(learning_rate=0.1), 10) for _ in range(2))
    student.activate(True)
    before = copy.deepcopy(critic.module.state_dict())
    (norm,) = ENGINE.backward([lambda: critic(student(torch.ones(3, 2))).square().mean()], [student])
    assert all(parameter.grad is None for parameter in critic.module.parameters())
    assert all(parameter.grad is not None for parameter in student.module.parameters())
    student.step(norm)
    assert all(torch.equal(before[name], value) for name, value in critic.module.state_dict().items())


def test_what_the_network_does_not_train_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    module[0].weight.requires_grad_(False)  # fixed Fourier features are such parameters
    fixed = module[0].weight.clone()
    role = ENGINE.role(module, settings(learning_rate=0.1, ema_decay=0.5), 10)
    for _ in range(3):
        role.activate(True)
        role.step(*ENGINE.backward([lambda: role(torch.ones(4, 2)).square().mean()], [role]))
        role.activate(False)
    assert torch.equal(module[0].weight, fixed)
    assert not module[0].weight.requires_grad


def test_dropout_is_off_unless_asked_for() -> None:
    module = nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5))
    role = ENGINE.role(module, SETTINGS, 10)
    inputs = torch.ones(1, 2)
    before = torch.get_rng_state()
    assert torch.equal(role(inputs), role(inputs))
    assert torch.equal(torch.get_rng_state(), before)
    other = nn.Sequential(nn.Linear(2, 64), nn.Dropout(0.5))
    assert not torch.equal(*(ENGINE.role(copy.deepcopy(other), SETTINGS, 10, dropout=True)(inputs) for _ in range(2)))


def test_the_average_follows_and_is_what_is_delivered() -> None:
    role = ENGINE.role(nn.Linear(1, 1), settings(learning_rate=0.5, warmup_updates=0, ema_decay=0.9), 1000)
    role.activate(True)
    start = role.module.weight.item()
    for _ in range(50):
        role.step(*ENGINE.backward([lambda: role(torch.ones(1, 1)).sum()], [role]))
    raw, average = role.module.weight.item(), role.result().weight.item()
    assert raw < average < start
    handed = role.weights()
    assert handed.raw["weight"].item() == raw
    assert handed.average is not None
    assert handed.average["weight"].item() == average


def test_a_bundle_survives_its_file_and_goes_on_from_raw_weights(tmp_path) -> None:
    role = ENGINE.role(tiny_denoiser(0).copy(), settings(learning_rate=0.01, ema_decay=0.9), 10)
    role.activate(True)
    loss = role(torch.ones(2, 1, 8, 8), torch.ones(2), torch.tensor([0, 1])).square().mean()
    role.step(*ENGINE.backward([lambda: loss], [role]))
    path = tmp_path / "bundle.safetensors"
    Bundle({"student": role.weights()}).save(path)
    again = Bundle.load(path)
    other = again.restore("student", tiny_denoiser(1))
    for name, value in role.module.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
        assert torch.equal((again.roles["student"].average or {})[name], role.result().state_dict()[name])
    untouched = tiny_denoiser(1)
    before = copy.deepcopy(untouched.state_dict())
    again.restore("discriminator", untouched)
    assert all(torch.equal(before[name], value) for name, value in untouched.state_dict().items())


def test_tf32_is_off() -> None:
    torch.backends.cudnn.allow_tf32 = True
    Engine.on("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_what_the_engine_leaves_is_clipped_to_the_role_s_norm() -> None:
    role = ENGINE.role(nn.Linear(1, 1, bias=False), settings(learning_rate=0.1, clip_norm=0.5), 10)
    role.activate(True)
    (norm,) = ENGINE.backward([lambda: 3 * role(torch.ones(1, 1)).sum()], [role])
    assert norm.item() == pytest.approx(3.0)
    assert role.module.weight.grad.norm().item() == pytest.approx(0.5, rel=1e-4)
