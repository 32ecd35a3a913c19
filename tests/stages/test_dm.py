"""The DM stage: whose turn it is, which conditions each stream sees, and that a real training gets somewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from msd.conditions.partition import Partition
from msd.data.images import load_images
from msd.data.pairs import PairSet, PairsPlan, load_pairs, make_pairs
from msd.diffusion.solvers import Solver, one_step
from msd.errors import DataError
from msd.evaluation.bench import Bench
from msd.evaluation.samplers import Sampler
from msd.recipe import DMSection, EvaluationSection, RegressionSection
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher, load_teacher
from msd.training.engine import Engine
from msd.training.loop import run_stage

ENGINE = Engine.on("cpu")


class _Spy(torch.nn.Module):
    """A denoiser's stand-in that notes which conditions it is asked for."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner, self.seen = inner, Counter()

    def forward(self, x, noise_level, condition):
        self.seen.update(condition.tolist())
        return self.inner(x, noise_level, condition)


def random_pairs(num: int = 60) -> PairSet:
    generator = torch.Generator().manual_seed(1)
    noise, samples = torch.randn(2, num, 1, 8, 8, generator=generator)
    return PairSet(noise, torch.arange(num) % 10, samples)


def test_turns_follow_the_recipe(teacher: Teacher, halves: Partition) -> None:
    settings = DMSection(
        num_updates=3, batch_size=2, critic_turns=2, regression=RegressionSection(batch_size=2, head_start=0.34)
    )
    stage = DistributionMatching(settings, teacher.denoiser, halves, 0, random_pairs(), ENGINE)
    turns: list[str] = []
    run_stage(stage, ENGINE.generator(0), callbacks=[lambda step, record: turns.append(",".join(sorted(record)))])
    assert "critic" not in turns[0]
    assert "critic/loss" in turns[1]
    assert stage.roles["student"].num_updates == 3
    assert stage.roles["critic"].num_updates == 4


def test_dm_sees_the_part_and_regression_sees_every_pair(teacher: Teacher, halves: Partition) -> None:
    """DESIGN 5.6: two condition streams. The teacher is asked for the part only; the student also for the pairs' classes."""
    settings = DMSection(num_updates=20, batch_size=8, regression=RegressionSection(batch_size=8))
    stage = DistributionMatching(settings, teacher.denoiser, halves, 1, random_pairs(), ENGINE)
    teacher_spy, student_spy = _Spy(stage.teacher.network), _Spy(stage.student.network)
    stage.teacher.network, stage.student.network = teacher_spy, student_spy
    run_stage(stage, ENGINE.generator(0))
    assert set(teacher_spy.seen) == set(halves.parts[1])
    assert set(student_spy.seen) == set(range(10))


def test_own_share_tilts_the_pairs_towards_the_part(teacher: Teacher, halves: Partition) -> None:
    """With own_share 1 every regressed pair is of the part; with 0.5 the part gets half plus its share of the rest."""
    for own_share, expected in ((1.0, 1.0), (0.5, 0.75), (0.0, 0.5)):
        regression = RegressionSection(batch_size=10, head_start=1, own_share=own_share)
        settings = DMSection(num_updates=100, batch_size=2, regression=regression)
        stage = DistributionMatching(settings, teacher.denoiser, halves, 1, random_pairs(), ENGINE)
        generator = ENGINE.generator(0)
        labels = torch.cat([stage._pair_batch(stage._pairs, generator).conditions for _ in range(100)])
        share = float((halves.assign(labels) == 1).double().mean())
        assert share == pytest.approx(expected, abs=0.03)


def test_the_first_matching_gradient_is_zero(teacher: Teacher, halves: Partition) -> None:
    """The critic starts as the teacher, so there is nothing to match until it has seen the student."""
    settings = DMSection(num_updates=1, batch_size=4, regression=RegressionSection(weight=0))
    stage = DistributionMatching(settings, teacher.denoiser, halves, 0, None, ENGINE)
    records = []
    run_stage(stage, ENGINE.generator(0), callbacks=[lambda step, record: records.append(record)])
    assert records[0]["student/gradient_norm"] == pytest.approx(0, abs=1e-6)
    assert records[0]["critic/gradient_norm"] > 0


def test_regression_without_pairs_is_refused(teacher: Teacher, halves: Partition) -> None:
    with pytest.raises(DataError, match="needs pairs"):
        DistributionMatching(DMSection(), teacher.denoiser, halves, 0, None, ENGINE)


def test_a_real_distillation_reaches_a_pinned_distance(tmp_path: Path) -> None:
    """30 seconds with the shipped teacher: one student of classes 0 to 4 beats one Euler step of the teacher by far."""
    teacher = load_teacher("packaged:digits")
    images = load_images("digits")
    partition = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=images.prior)
    plan = PairsPlan(600, 300, Solver("heun", 8), images.prior, seed=0)
    make_pairs(teacher, tmp_path, plan)
    regression = RegressionSection(weight=4, head_start=0.75, batch_size=48)
    settings = DMSection(num_updates=160, batch_size=32, learning_rate=2e-3, ema_decay=0.98, regression=regression)
    stage = DistributionMatching(settings, teacher.denoiser, partition, 0, load_pairs(tmp_path), ENGINE, sigma_init=2.5)
    run_stage(stage, ENGINE.generator(0))

    student = stage.roles["student"].result()
    bench = Bench(images, partition, EvaluationSection(num_samples=1500))

    @torch.inference_mode()
    def generate(noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return student.spec.codec.decode(one_step(student, noise, labels, 2.5))

    row = bench.row(Sampler("student", generate, 1, 0))
    assert row["per_part"][0] < 25  # the teacher's own one Euler step scores above 400
