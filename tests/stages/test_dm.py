"""The DM stage: whose turn it is, which keys each stream sees, and that a real training gets somewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from builders import materials, random_pairs
from msd.conditions.partition import Partition
from msd.data.images import load_digits
from msd.data.pairs import PairsPlan, make_pairs
from msd.data.shards import open_pairs
from msd.diffusion.solvers import Solver, one_step
from msd.errors import DataError
from msd.evaluation.bench import Bench
from msd.evaluation.samplers import Sampler
from msd.recipe import DMSection, EvaluationSection, RegressionSection
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher, load_teacher
from msd.training.bundle import Bundle
from msd.training.engine import Engine
from msd.training.loop import steps

ENGINE = Engine.on("cpu")


class _Spy(torch.nn.Module):
    """A network's stand-in that notes which conditions it is asked for."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner, self.seen = inner, Counter()

    def forward(self, x, noise_level, condition):
        self.seen.update(condition.tolist())
        return self.inner(x, noise_level, condition)


def run(stage: DistributionMatching, seed: int = 0) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in record.items()} for _, record in steps(stage, ENGINE, seed)]


def test_turns_follow_the_recipe(teacher: Teacher, halves: Partition) -> None:
    settings = DMSection(
        num_updates=3, batch_size=2, critic_turns=2, regression=RegressionSection(batch_size=2, head_start=0.34)
    )
    stage = DistributionMatching(settings, materials(teacher, halves, pairs=random_pairs()))
    records = run(stage)
    assert "critic/loss" not in records[0]
    assert {"student/dm", "student/regression", "critic/loss", "critic/gradient_norm"} <= records[1].keys()
    assert stage.roles["student"].num_updates == 3
    assert stage.roles["critic"].num_updates == 4


def test_dm_sees_the_part_and_regression_sees_every_pair(teacher: Teacher, halves: Partition) -> None:
    """DESIGN 4.6: two key streams. The teacher is asked for the part only; the student also for the pairs' classes."""
    settings = DMSection(num_updates=20, batch_size=8, regression=RegressionSection(batch_size=8))
    stage = DistributionMatching(settings, materials(teacher, halves, part=1, pairs=random_pairs()))
    student = stage.roles["student"].module
    teacher_spy, student_spy = _Spy(teacher.denoiser.network), _Spy(student.network)
    teacher.denoiser.network, student.network = teacher_spy, student_spy
    run(stage)
    assert set(teacher_spy.seen) == set(halves.parts[1])
    assert set(student_spy.seen) == set(range(10))


def test_the_first_matching_gradient_is_zero(teacher: Teacher, halves: Partition) -> None:
    """The critic starts as the teacher, so there is nothing to match until it has seen the student."""
    settings = DMSection(num_updates=1, batch_size=4, regression=RegressionSection(weight=0))
    records = run(DistributionMatching(settings, materials(teacher, halves)))
    assert records[0]["student/gradient_norm"] == pytest.approx(0, abs=1e-6)
    assert records[0]["critic/gradient_norm"] > 0


def test_regression_without_pairs_is_refused(teacher: Teacher, halves: Partition) -> None:
    with pytest.raises(DataError, match="needs pairs"):
        DistributionMatching(DMSection(), materials(teacher, halves))


def test_a_stage_goes_on_from_the_bundle_of_the_one_before(teacher: Teacher, halves: Partition) -> None:
    """Student and critic both, raw: what ADM, and a branch, begin with."""
    settings = DMSection(num_updates=3, batch_size=4, warmup_updates=0, regression=RegressionSection(weight=0))
    first = DistributionMatching(settings, materials(teacher, halves))
    run(first)
    bundle = Bundle({name: role.weights() for name, role in first.roles.items()})
    second = DistributionMatching(settings, materials(teacher, halves, bundle=bundle))
    for name, role in first.roles.items():
        for tensor, value in role.module.state_dict().items():
            assert torch.equal(second.roles[name].module.state_dict()[tensor], value)
    averaged, raw = first.roles["student"].result().state_dict(), first.roles["student"].module.state_dict()
    assert any(not torch.equal(averaged[tensor], raw[tensor]) for tensor in raw)


def test_students_of_equal_seeds_are_equal_and_others_differ(teacher: Teacher, halves: Partition) -> None:
    settings = DMSection(num_updates=3, batch_size=4, regression=RegressionSection(weight=0))
    records = [run(DistributionMatching(settings, materials(teacher, halves)), seed) for seed in (1, 1, 2)]
    assert records[0] == records[1] != records[2]


def test_a_real_distillation_reaches_a_pinned_distance(tmp_path: Path) -> None:
    """30 seconds with the shipped teacher: one student of classes 0 to 4 beats one Euler step of the teacher by far."""
    teacher = load_teacher("packaged:digits")
    images = load_digits()
    partition = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=images.prior)
    solver = Solver("heun", 8)
    make_pairs(
        lambda noise, keys: solver(teacher.denoiser, noise, keys),
        teacher.denoiser.spec.noise_shape,
        tmp_path,
        PairsPlan(600, 300, images.prior, seed=0, identity="test"),
    )
    regression = RegressionSection(weight=4, head_start=0.75, batch_size=48)
    settings = DMSection(num_updates=160, batch_size=32, learning_rate=2e-3, ema_decay=0.98, regression=regression)
    stage = DistributionMatching(settings, materials(teacher, partition, pairs=open_pairs(tmp_path), sigma_init=2.5))
    run(stage)

    student = stage.roles["student"].result()
    bench = Bench(images, partition, EvaluationSection(num_samples=1500))

    @torch.inference_mode()
    def generate(noise: torch.Tensor, labels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return student.spec.codec.decode(one_step(student, noise, labels, 2.5))

    row = bench.row(Sampler("student", generate, 1, 0))
    assert row["per_part"][0] < 25  # the teacher's own one Euler step scores above 400
