"""SongUNet among our own networks: built, saved, tapped, counted and copied as any other; never made smaller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.errors import ConditionError, RecipeError, WeightsError
from msd.networks.anatomies import ANATOMIES, SONG
from msd.networks.cost import flops_to_tap, forward_flops
from msd.networks.facts import denoiser_hash
from msd.networks.folder import load_denoiser, save_denoiser
from msd.networks.inherit import fresh, inherit
from msd.networks.places import place_shapes
from msd.networks.shrink import smaller_config
from msd.networks.song import build_song
from msd.networks.song_config import SongConfig
from msd.networks.taps import Tap, tappable
from msd.teachers.facts import read_teacher

SMALL = SongConfig(8, 1, 1, 10, model_channels=8, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,))
VARIANTS = {
    "ddpm++": SMALL,
    "ncsn++": replace(
        SMALL, embedding_type="fourier", encoder_type="residual", channel_mult_noise=2, resample_filter=(1, 3, 3, 1)
    ),
    "three levels": replace(SMALL, channel_mult=(2, 1, 3), num_blocks=2, attn_resolutions=(8, 4), img_resolution=16),
    "one level": replace(SMALL, channel_mult=(1,), attn_resolutions=()),
}
EACH = pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
KEYS = torch.tensor([0, 4, 9])


def denoiser_of(config: SongConfig, seed: int = 0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_song(config.to_json())
    size = config.img_resolution
    return Denoiser(network, DenoiserSpec(noise_shape=(1, size, size), num_conditions=10)).eval()


def inputs(config: SongConfig) -> tuple[Any, Any, Any]:
    size = config.img_resolution
    return torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.7), KEYS


@EACH
def test_parameters_and_places_are_known_from_the_configuration(config: SongConfig) -> None:
    denoiser, label, size = denoiser_of(config), torch.tensor([0]), config.img_resolution
    foreseen = ANATOMIES[SONG](config.to_json())
    assert foreseen.num_parameters() == denoiser.num_parameters()
    shapes = {name: Tap(denoiser, name).shape(denoiser, label) for name in tappable(denoiser.network).places()}
    assert shapes == place_shapes(foreseen, size, size)
    x0, features = Tap(denoiser, "up.0")(denoiser, *inputs(config))
    assert features.shape == (3, *shapes["up.0"])
    assert torch.equal(x0, denoiser(*inputs(config)))


@EACH
def test_what_was_saved_comes_back(tmp_path: Path, config: SongConfig) -> None:
    denoiser = denoiser_of(config)
    save_denoiser(denoiser, tmp_path, role="teacher")
    loaded = load_denoiser(tmp_path)
    assert torch.equal(loaded(*inputs(config)), denoiser(*inputs(config)))
    assert loaded.network.config() == config.to_json()
    facts = read_teacher(tmp_path)
    assert (facts.kind, facts.hash, facts.config) == (SONG, denoiser_hash(tmp_path), config.to_json())
    embeddings = facts.embeddings()
    assert embeddings is not None
    assert embeddings.shape == (10, config.noise_channels)


@EACH
def test_its_work_is_counted_without_computing(config: SongConfig) -> None:
    denoiser, (x, sigma, keys) = denoiser_of(config), inputs(config)
    # On the CPU the counter passes over attention in one piece.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        denoiser(x[:1], sigma[:1], keys[:1])
    assert forward_flops(denoiser) == counter.get_total_flops()
    assert 0 < flops_to_tap(denoiser, "down.0") < flops_to_tap(denoiser, "bottleneck") < forward_flops(denoiser)


@EACH
def test_every_weight_learns_but_the_random_frequencies(config: SongConfig) -> None:
    student = denoiser_of(config).requires_grad_(False).copy()
    student(*inputs(config)).square().mean().backward()
    for name, value in student.named_parameters():
        assert value.requires_grad == (not name.endswith("frequencies")), name
        assert not value.requires_grad or (value.grad is not None and bool(value.grad.abs().sum() > 0)), name


def test_dropout_is_for_training_alone() -> None:
    denoiser = denoiser_of(replace(SMALL, dropout=0.5))
    before = denoiser(*inputs(SMALL))
    assert torch.equal(denoiser(*inputs(SMALL)), before)
    denoiser.train()
    assert not torch.equal(denoiser(*inputs(SMALL)), before)


def test_a_class_that_it_does_not_know_is_refused() -> None:
    x, sigma, _ = inputs(SMALL)
    with pytest.raises(ConditionError, match="classes are 0 to 9"):
        denoiser_of(SMALL)(x, sigma, torch.tensor([0, 1, 10]))


def test_bfloat16_is_near() -> None:
    denoiser, config = denoiser_of(VARIANTS["ncsn++"]), VARIANTS["ncsn++"]
    with torch.autocast("cpu", torch.bfloat16):
        found = denoiser(*inputs(config))
    assert found.dtype == torch.float32
    assert torch.allclose(found, denoiser(*inputs(config)), atol=0.05)


def test_a_random_start_is_of_its_seed() -> None:
    teacher = denoiser_of(VARIANTS["ncsn++"])
    config = teacher.network.config()
    one, same, other = (fresh(teacher, config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["network.model.frequencies"], other["network.model.frequencies"])


def test_no_smaller_one_is_known() -> None:
    teacher = denoiser_of(SMALL)
    message = (
        "no smaller network is known of a teacher of kind 'song-unet', only of a UNet2DModel; leave student.reduce at 0"
    )
    with pytest.raises(RecipeError, match=message):
        smaller_config(teacher.network.config(), 0.4, SONG)
    with pytest.raises(WeightsError, match=message):
        inherit(teacher, SMALL.to_json())
