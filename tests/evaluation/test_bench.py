"""What all rows of a table share, and the clock and memory of one."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from builders import tiny_denoiser
from msd.conditions.partition import Partition
from msd.data.images import ImageSet, load_images
from msd.diffusion.solvers import Solver
from msd.errors import DataError, WeightsError
from msd.evaluation import bench as bench_module
from msd.evaluation.bench import Bench
from msd.evaluation.features import Extractor, load_network
from msd.evaluation.latency import measure_latency, measure_peak_memory
from msd.evaluation.metrics import frechet_distance
from msd.evaluation.reference import evenly
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
    sampler = Sampler("flat", lambda noise, labels, seeds: noise.reshape(-1, 1, 8, 8).clamp(-1, 1), 1, 0)
    row = flat.row(sampler)
    assert row["num_samples"] == 40
    assert row["frechet_distance"] > 0
    assert measure_latency(sampler, (64,), 10, (1, 3), 2).keys() == {"1", "3"}


def test_a_sampler_is_called_as_its_row(bench):
    sampler = teacher_sampler(tiny_denoiser(0), Solver("euler", 2))
    assert (sampler.name, sampler.num_function_evaluations) == ("teacher-euler2", 2)
    noise, labels = bench.inputs
    assert sampler.in_batches(noise, labels, bench.seeds, 16).shape == (40, 1, 8, 8)


def test_a_teacher_that_draws_noise_does_not_depend_on_the_batch(bench):
    """Each image's noise in each step is by its own seed; another seed gives another image from the same start."""
    sampler, (noise, labels) = teacher_sampler(tiny_denoiser(0), Solver("heun-sde", 3)), bench.inputs
    whole = sampler.in_batches(noise, labels, bench.seeds, 40)
    torch.testing.assert_close(sampler.in_batches(noise, labels, bench.seeds, 7), whole, rtol=0, atol=2e-4)
    torch.testing.assert_close(sampler.generate(noise[5:6], labels[5:6], bench.seeds[5:6]), whole[5:6], rtol=0, atol=2e-4)
    assert (sampler.generate(noise[5:6], labels[5:6], bench.seeds[6:7]) - whole[5:6]).abs().max() > 1e-2


def halves(pixels):
    """A feature network that knows no classes: the upper and the lower half of an image, and their product."""
    upper, lower = pixels[..., :4, :].mean((1, 2, 3)), pixels[..., 4:, :].mean((1, 2, 3))
    return torch.stack([upper, lower, upper * lower], 1), None


@pytest.fixture
def two_opinions(monkeypatch, bench):
    """A bench with a second network that takes images of any shape."""
    second = Extractor(halves, "lite0", "2" * 64, "FID-halves", at_a_time=7)
    monkeypatch.setattr(
        bench_module, "load_network", lambda name, run: second if name == "lite0" else load_network(name, run)
    )
    monkeypatch.setattr(bench_module, "SEEN_AGAIN", 25)
    monkeypatch.setattr(bench_module, "MOST_SEEN_AGAIN", 300)
    return replace(bench, settings=bench.settings.model_copy(update={"also": ("lite0",)}))


def test_a_second_opinion_is_a_distance_more(bench, two_opinions):
    """Beside the first one's numbers, which stay; on so many images, in its network's own batches."""
    pixels = bench.images.pixels[:40]
    first = bench.score(pixels)
    assert two_opinions.num_unseen == 300 + 1797
    done = []
    two_opinions.look(done.append)
    assert (sum(done), two_opinions.num_unseen) == (300 + 1797, 0)
    done.clear()
    second = two_opinions.score(pixels, done.append)
    real = halves(bench.images.pixels[evenly(1797, 300)])[0]
    assert second.pop("others") == {"FID-halves": pytest.approx(frechet_distance(real, halves(pixels[:25])[0]), abs=1e-4)}
    assert second == first
    assert done == [7, 7, 7, 4]
    assert two_opinions.work == 40 + 25
    assert two_opinions.provenance["also"] == {
        "FID-halves": {"feature_network_sha256": "2" * 64, "num_reference": 300, "num_samples": 25}
    }
    assert two_opinions.content != bench.content


def test_a_network_without_classes_has_no_label_accuracy(bench, two_opinions):
    other = replace(two_opinions, settings=bench.settings.model_copy(update={"features": "lite0"}))
    found = other.score(bench.images.pixels[:40])
    assert found["label_accuracy"] is None
    assert found["frechet_distance"] > 0
    assert other.provenance["metric"] == "FID-halves"


def test_images_of_another_shape_than_the_real_ones_are_refused(bench):
    with pytest.raises(DataError, match="the images are 3x8x8 and the real ones 1x8x8"):
        bench.score(torch.zeros(40, 3, 8, 8))
    large = ImageSet("large", torch.zeros(10, 3, 32, 32), torch.arange(10), 10, "CC0")
    with pytest.raises(WeightsError, match=r"packaged:digits takes 1x8x8 images, these are 3x32x32; set evaluation"):
        replace(bench, images=large)


@pytest.mark.skipif(sys.platform != "linux", reason="the probe reads /proc")
@pytest.mark.parametrize("solver", [None, Solver("euler", 2), Solver("heun-sde", 2)])
def test_peak_memory_is_asked_of_a_fresh_process(tmp_path, solver):
    save_denoiser(tiny_denoiser(0, sigma_init=2.5), tmp_path, role="student")
    growth = measure_peak_memory(tmp_path, solver, 64, threads=1)
    assert growth is not None
    assert 0 < growth < 2000
