"""Taps: features come out of the very forward that gives the output, through whatever wraps the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from builders import tiny_denoiser, unet
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.errors import RecipeError, WeightsError
from msd.networks.anatomy import read_anatomy
from msd.networks.build import ToyMLP, build_unet
from msd.networks.places import place_shapes
from msd.networks.taps import Tap, tappable
from msd.recipe import RoleSection
from msd.training.engine import Engine

X, SIGMA, KEYS = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.ones(3), torch.tensor([0, 4, 9])
LABEL = torch.tensor([0])


@pytest.mark.parametrize(
    ("name", "shape"),
    [("down.0", (8, 4, 4)), ("down.1", (16, 4, 4)), ("bottleneck", (16, 4, 4)), ("up.0", (16, 8, 8)), ("up.1", (8, 8, 8))],
)
def test_each_place_has_its_features(name: str, shape: tuple[int, ...]) -> None:
    denoiser = tiny_denoiser(0)
    tap = Tap(denoiser, name)
    assert tap.shape(denoiser, LABEL) == shape
    x0, features = tap(denoiser, X, SIGMA, KEYS)
    assert features.shape == (3, *shape)
    assert torch.equal(x0, denoiser(X, SIGMA, KEYS))


@pytest.mark.parametrize("config", [unet((8, 16), size=8), unet((4, 8, 8), 2, 16, (1, 2)), unet((8,), size=8)])
def test_places_and_sizes_are_known_from_the_configuration(config: dict[str, Any]) -> None:
    size = config["sample_size"]
    spec = DenoiserSpec(noise_shape=(1, size, size), num_conditions=10)
    denoiser = Denoiser(build_unet(config), spec).eval()
    shapes = {name: Tap(denoiser, name).shape(denoiser, LABEL) for name in tappable(denoiser.network).places()}
    assert place_shapes(read_anatomy(config), size, size) == shapes


def test_the_features_are_the_middle_block_s_output() -> None:
    denoiser, seen = tiny_denoiser(0), []
    denoiser.network.model.mid_block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    _, features = Tap(denoiser, "bottleneck")(denoiser, X, SIGMA, KEYS)
    assert features is seen[0]


def test_nothing_stays_on_the_network() -> None:
    denoiser = tiny_denoiser(0)
    Tap(denoiser, "down.0")(denoiser, X, SIGMA, KEYS)
    assert not any(module._forward_hooks for module in denoiser.modules())
    with pytest.raises(ZeroDivisionError):
        Tap(denoiser, "down.0")(lambda *inputs: 1 / 0, X, SIGMA, KEYS)  # pyright: ignore
    assert not any(module._forward_hooks for module in denoiser.modules())


def test_a_role_is_called_itself_and_its_weights_learn_from_features_in_turn_only() -> None:
    denoiser = tiny_denoiser(0)
    role = Engine.on("cpu").role(denoiser, RoleSection(learning_rate=1e-3), 10)
    tap, x = Tap(denoiser, "bottleneck"), X.clone().requires_grad_()
    tap(role, x, SIGMA, KEYS)[1].square().mean().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    role.activate(True)
    tap(role, x, SIGMA, KEYS)[1].square().mean().backward()
    grads = {name: parameter.grad for name, parameter in denoiser.named_parameters()}
    assert grads["network.model.conv_in.weight"] is not None
    assert grads["network.model.conv_out.weight"] is None  # beyond the tap


def test_a_tap_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(RecipeError, match=r"no tap 'middle'; it has down\.0, down\.1, bottleneck, up\.0, up\.1: set"):
        Tap(tiny_denoiser(0), "middle")


def test_the_toy_s_network_has_taps_and_others_have_none() -> None:
    denoiser = Denoiser(ToyMLP(2, 3, 8, 4), DenoiserSpec(noise_shape=(2,), num_conditions=3))
    assert list(tappable(denoiser.network).places()) == ["bottleneck", "block.0", "block.1", "block.2", "block.3"]
    assert Tap(denoiser, "bottleneck").shape(denoiser, LABEL) == (8,)
    with pytest.raises(WeightsError, match="where to tap a Linear"):
        tappable(nn.Linear(1, 1))
