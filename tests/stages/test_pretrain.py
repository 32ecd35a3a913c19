"""Pretraining: a role of one turn, whose randomness, dropout's included, is a function of seed and step."""

from __future__ import annotations

import pytest
import torch

from msd.data.images import load_digits
from msd.recipe import NetworkSection, PretrainSection
from msd.stages.materials import Materials
from msd.stages.pretrain import Pretraining
from msd.training.engine import Engine
from msd.training.loop import steps

ENGINE = Engine.on("cpu")


def trained(dropout: float, num_updates: int = 4) -> tuple[list[float], list[torch.Tensor]]:
    network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4, dropout=dropout)
    stage = Pretraining(
        PretrainSection(num_updates=num_updates, batch_size=16),
        Materials(ENGINE, seed=0, images=load_digits(), network=network),
    )
    losses = [float(record["teacher/loss"]) for _, record in steps(stage, ENGINE, seed=0)]
    return losses, [value.clone() for value in stage.roles["teacher"].module.state_dict().values()]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_seed_gives_the_same_teacher(dropout: float) -> None:
    first = trained(dropout)
    torch.manual_seed(5)
    torch.rand(7)
    before = torch.get_rng_state()
    second = trained(dropout)
    assert first[0] == second[0]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first[1], second[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_on_in_pretraining() -> None:
    assert trained(0.0)[0] != trained(0.3)[0]


def test_the_loss_falls() -> None:
    losses, _ = trained(0.0, num_updates=60)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
