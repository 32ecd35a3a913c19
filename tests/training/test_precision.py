"""bfloat16: what is computed in it, what is not, and that a training is the same training, only rounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from builders import materials, random_pairs
from msd.conditions.partition import Partition
from msd.data.images import load_digits
from msd.recipe import ADMSection, DMSection, PairedSection, RegressionSection, RoleSection, TSMSection
from msd.stages.adm import AdversarialMatching
from msd.stages.dm import DistributionMatching
from msd.stages.materials import Materials
from msd.stages.tsm import TeacherMatching
from msd.teachers.folder import Teacher
from msd.training.engine import Engine
from msd.training.loop import Stage, steps

FLOAT32 = Engine.on("cpu")
BFLOAT16 = replace(FLOAT32, precision="bfloat16")
STAGES: dict[str, Callable[[Materials], Stage]] = {
    "tsm": lambda given: TeacherMatching(TSMSection(num_updates=4, batch_size=16, look_every=2), given),
    "dm": lambda given: DistributionMatching(
        DMSection(num_updates=4, batch_size=16, regression=RegressionSection(batch_size=16, head_start=0.5)), given
    ),
    "adm": lambda given: AdversarialMatching(
        ADMSection(num_updates=2, batch_size=16, discriminator_warmup=1, regression=PairedSection(weight=1, batch_size=16)),
        given,
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_computed_in_it_and_keeps_float32_weights(teacher: Teacher, halves: Partition, name: str) -> None:
    """Its convolutions answer in bfloat16; what is learned and what is said of it is float32, and nearly the same."""
    kinds, found, learned = dict[Engine, set[torch.dtype]](), list[list[dict[str, Tensor]]](), list[Tensor]()
    for engine in (FLOAT32, BFLOAT16):
        given = materials(teacher, halves, part=1, sigma_init=2.5, pairs=random_pairs(), images=load_digits())
        assert given.start is not None
        first = next(given.start.parameters())
        nn.init.ones_(first)  # a copy of its teacher would have nothing to learn by TSM
        stage = STAGES[name](given)
        seen = kinds.setdefault(engine, set())
        for role in stage.roles.values():
            for module in role.module.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(lambda module, inputs, output, seen=seen: seen.add(output.dtype))
        before = stage.roles["student"].weights().raw
        before = {key: value.clone() for key, value in before.items()}
        found.append([record for _, record in steps(stage, engine, 3)])
        after = stage.roles["student"].weights().raw
        assert {value.dtype for value in after.values()} == {torch.float32}
        learned.append(torch.cat([(after[key] - before[key]).flatten() for key in before]))
    assert kinds[FLOAT32] == {torch.float32}
    assert kinds[BFLOAT16] == {torch.bfloat16}
    for exact, rounded in zip(*found, strict=True):
        assert exact.keys() == rounded.keys()
        assert {value.dtype for value in rounded.values()} == {torch.float32}
    first, second = (records[0] for records in found)
    for key, value in first.items():
        if "accuracy" not in key and "r1" not in key:  # counts of few samples; a difference of nearly equal numbers
            assert float(second[key]) == pytest.approx(float(value), rel=0.1, abs=1e-3), key
    assert not torch.equal(*learned)
    assert torch.cosine_similarity(*learned, dim=0) > 0.9


def test_weights_that_were_first_used_without_gradients_still_learn() -> None:
    """As a student's are that makes samples for its critic and then learns, in one loss."""
    network, x = nn.Linear(4, 4), torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        with torch.no_grad():
            target = network(x) + 1
        return (network(x) - target).square().mean()

    role = BFLOAT16.role(network, RoleSection(learning_rate=0.1), 1)
    role.activate(True)
    (norm,) = BFLOAT16.backward([loss], [role])
    assert norm > 0
