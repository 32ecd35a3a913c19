"""How good a start is: nothing to learn for a copy of the teacher, much for random weights, and each part by its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders import save_teacher, tiny_denoiser
from msd.conditions.partition import Partition
from msd.data.images import load_digits
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.solvers import Solver
from msd.errors import WeightsError
from msd.evaluation.bench import Bench
from msd.evaluation.samplers import teacher_sampler
from msd.evaluation.starts import NUM_LEVELS, StartBench
from msd.recipe import EvaluationSection


@pytest.fixture
def starts(tmp_path: Path) -> StartBench:
    images = load_digits()
    bench = Bench(images, Partition.whole(images.prior), EvaluationSection(num_samples=60, batch_size=32))
    return StartBench(bench, save_teacher(tmp_path / "teacher"), Solver("euler", 3))


def student(seed: int, sigma_init: float = 80.0) -> Denoiser:
    return tiny_denoiser(seed, sigma_init=sigma_init)


def test_the_teacher_itself_has_nothing_to_learn(starts: StartBench) -> None:
    found = starts.measure([student(0)], starts.bench.partition)
    assert found["losses"] == [0.0] * NUM_LEVELS
    spec = starts.teacher.denoiser.spec
    assert (found["sigmas"][0], found["sigmas"][-1]) == (spec.sigma_min, spec.sigma_max)
    # One step of it from the highest level is its own Euler step.
    once = starts.bench.row(teacher_sampler(starts.teacher.denoiser, Solver("euler", 1)))
    assert found["frechet_distance"] == pytest.approx(once["frechet_distance"], rel=1e-4)
    assert found["num_samples"] == 60


def test_each_part_is_measured_by_its_own_start(starts: StartBench, halves: Partition) -> None:
    seen: list[int] = []
    copy, other = student(0), student(1)
    whole = starts.measure([other], Partition.whole(halves.prior), seen.append)
    assert sum(seen) == starts.work
    assert all(loss > 0 for loss in whole["losses"])
    first, second = (starts.measure(pair, halves)["losses"] for pair in ([copy, other], [other, copy]))
    assert [a + b for a, b in zip(first, second, strict=True)] == pytest.approx(whole["losses"], rel=1e-3)


def test_the_loss_is_the_weighted_difference(starts: StartBench) -> None:
    """A start that is off by 0.1 everywhere: 0.01 times the weight of the level."""
    off = student(0)
    off.register_forward_hook(lambda module, inputs, output: output + 0.1)
    found = starts.measure([off], starts.bench.partition)
    wanted = [0.01 * (sigma**-2 + 0.5**-2) for sigma in found["sigmas"]]
    assert found["losses"] == pytest.approx(wanted, rel=0.01)


def test_a_stochastic_solver_gives_the_same_samples_twice(starts: StartBench) -> None:
    sde = replace(starts, solver=Solver("heun-sde", 3))
    first, second = (replace(sde).measure([student(1)], sde.bench.partition) for _ in range(2))
    assert first == second


def test_what_is_not_finite_is_refused(starts: StartBench) -> None:
    broken = student(0)
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        starts.measure([broken], starts.bench.partition)
