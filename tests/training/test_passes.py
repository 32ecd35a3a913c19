"""What stages say of their arithmetic is what torch counts while they take their steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders import ENGINE, UNIFORM, random_pairs, unet
from msd.conditions.partition import Partition
from msd.conditions.table import LabelConditions
from msd.data.images import load_digits
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.networks.build import build_unet
from msd.recipe import (
    ADMSection,
    DMSection,
    NetworkSection,
    PairedSection,
    PretrainSection,
    RegressionSection,
    StageSection,
    TSMSection,
)
from msd.stages.materials import Materials
from msd.stages.table import STAGES
from msd.training.loop import steps
from msd.training.passes import ALL, Pass, num_flops, stage_flops

HALVES = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)
NARROW, WIDE = (16, 32), (32, 64)
BATCH: dict[str, Any] = {"batch_size": 8, "warmup_updates": 0}


def denoiser(widths: tuple[int, ...], sigma_init: float | None = None) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_unet(unet(widths))
    return Denoiser(network, DenoiserSpec(noise_shape=(1, 8, 8), num_conditions=10, sigma_init=sigma_init)).eval()


def gathered(num_pairs: int = 60) -> Materials:
    """A student half as wide as its teacher, so that neither is taken for the other."""
    return Materials(
        ENGINE,
        seed=0,
        teacher=denoiser(WIDE).requires_grad_(False),
        start=denoiser(NARROW, 2.5),
        conditions=LabelConditions(10),
        partition=HALVES,
        part=1,
        pairs=random_pairs(num_pairs),
        images=load_digits(),
        network=NetworkSection(block_out_channels=NARROW, norm_num_groups=4),
    )


PAIRED, FREE = {"regression": PairedSection(batch_size=6)}, {"regression": PairedSection(weight=0)}
ADM: dict[str, Any] = {"num_updates": 2, "critic_turns": 2, "discriminator_warmup": 3} | BATCH
CASES: dict[str, tuple[str, StageSection]] = {
    "pretrain": ("pretrain", PretrainSection(num_updates=2, **BATCH)),
    "tsm": ("tsm", TSMSection(num_updates=5, look_every=2, held_out=0.2, **BATCH)),
    "dm without pairs": ("dm", DMSection(num_updates=2, critic_turns=3, regression=RegressionSection(weight=0), **BATCH)),
    "dm with a head start": (
        "dm",
        DMSection(num_updates=4, regression=RegressionSection(batch_size=6, head_start=0.5), **BATCH),
    ),
    "adm": ("adm", ADMSection(**ADM, **PAIRED)),
    "adm with R1": ("adm", ADMSection(**ADM, **FREE, r1_weight=1.0, tap="up.0")),
    "adm on the teacher": ("adm", ADMSection(**ADM, **PAIRED, features="teacher", trains_critic=False, tap="down.0")),
    "adm, critic untouched": ("adm", ADMSection(**ADM, **PAIRED, trains_critic=False)),
    "adm without convolutions": ("adm", ADMSection(**ADM, **PAIRED, trained_layers="no-convolutions")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stage_computes_what_it_says(case: str) -> None:
    name, settings = CASES[case]
    counter, taken = FlopCounterMode(display=False), 0
    with counter:
        stage = STAGES[name](settings, gathered())
        for step, _ in steps(stage, ENGINE, 0):
            taken = step
    assert taken == settings.num_steps
    assert stage_flops(stage, taken) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_stage_that_ended_early_counts_as_long_as_it_was() -> None:
    stage = STAGES["dm"](DMSection(num_updates=4, regression=RegressionSection(head_start=0.5)), gathered(200))
    first, last = stage_flops(stage, 2), stage_flops(stage, 4) - stage_flops(stage, 2)
    assert 0 < 3 * first < last
    assert stage_flops(stage, 0) == 0


def test_passes_are_counted_forwards_and_back() -> None:
    passes = (Pass("student", 3, ALL), Pass("teacher", 2), Pass("features", 1, ALL, forward=0))
    assert num_flops(passes, {"student": 10, "teacher": 100, "features": 1000}) == 3 * 30 + 2 * 100 + 2 * 1000
