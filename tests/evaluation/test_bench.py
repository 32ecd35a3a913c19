"""What all rows of a table share, and the clock and memory of one."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from builders import tiny_denoiser
from msd.conditions.partition import Partition
from msd.data.images import load_images
from msd.diffusion.solvers import Solver
from msd.evaluation.bench import Bench
from msd.evaluation.latency import measure_latency, measure_peak_memory
from msd.evaluation.samplers import Sampler, teacher_sampler
from msd.networks.folder import save_denoiser
from msd.recipe import EvaluationSection, load_recipe


@pytest.fixture(scope="module")
def bench() -> Bench:
    images = load_images(load_recipe("digits").data)
    return Bench(images, Partition.whole(images.prior), EvaluationSection(num_samples=40, seed=5))


def test_an_image_of_the_evaluation_does_not_depend_on_how_many_there_are(bench):
    """The first of many are the few: noise by image, labels in one sequence."""
    more = replace(bench, settings=bench.settings.model_copy(update={"num_samples": 90}))
    noise, labels = bench.inputs
    assert noise.shape == (40, 1, 8, 8)
    assert torch.equal(more.inputs[0][:40], noise)
    assert torch.equal(replace(bench).inputs[1], labels)
    other = replace(bench, settings=bench.settings.model_copy(update={"seed": 6}))
    assert not torch.equal(other.inputs[0], noise)


def test_noise_need_not_have_the_shape_of_the_images(bench):
    """A row whose noise is a vector: measured and timed like any other."""
    flat = replace(bench, noise_shape=(64,))
    assert flat.inputs[0].shape == (40, 64)
    sampler = Sampler("flat", lambda noise, labels: noise.reshape(-1, 1, 8, 8).clamp(-1, 1), 1, 0)
    row = flat.row(sampler)
    assert row["num_samples"] == 40
    assert row["frechet_distance"] > 0
    assert measure_latency(sampler, (64,), 10, (1, 3), 2).keys() == {"1", "3"}


def test_a_sampler_is_called_as_its_row(bench):
    sampler = teacher_sampler("any name", tiny_denoiser(0), Solver("euler", 2))
    assert (sampler.name, sampler.num_function_evaluations) == ("any name", 2)
    noise, labels = bench.inputs
    assert sampler.in_batches(noise, labels, 16).shape == (40, 1, 8, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="the probe reads /proc")
@pytest.mark.parametrize("solver", [None, Solver("euler", 2)])
def test_peak_memory_is_asked_of_a_fresh_process(tmp_path, solver):
    save_denoiser(tiny_denoiser(0, sigma_init=2.5), tmp_path, role="student")
    growth = measure_peak_memory(tmp_path, solver, 64, threads=1)
    assert growth is not None
    assert 0 < growth < 2000
