"""Pairs of a teacher whose codec folds pixels: they lie in its own space and shape, and students learn from them there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import UNIFORM, materials
from msd.conditions.partition import Partition
from msd.data.shards import open_pairs
from msd.diffusion.codec import FoldedCodec
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.diffusion.solvers import Solver
from msd.fleet.jobs import Job, PairsTask, result_folder
from msd.fleet.pairing import pair
from msd.fleet.progress import Progress
from msd.networks.build import build_unet, unet_config
from msd.networks.folder import save_denoiser
from msd.recipe import DMSection, NetworkSection, RegressionSection, SolverSection, TSMSection
from msd.stages.dm import DistributionMatching
from msd.stages.tsm import TeacherMatching
from msd.teachers.folder import Teacher, load_teacher
from msd.training.engine import Engine
from msd.training.loop import steps

SHAPE, PIXELS = (4, 4, 4), (1, 8, 8)
ENGINE = Engine.on("cpu")
SOLVER = SolverSection(num_steps=3, sigma_min=0.02, sigma_max=80).model_dump()


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = tmp_path_factory.mktemp("folded") / "teacher"
    folder.mkdir()
    network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = build_unet(unet_config(SHAPE, 10, network.model_dump()))
    spec = DenoiserSpec(noise_shape=SHAPE, num_conditions=10, codec=FoldedCodec(0.2, 0.1, 2))
    assert spec.pixel_shape == PIXELS
    save_denoiser(Denoiser(unet, spec), folder, role="teacher", prior=list(UNIFORM))
    return load_teacher(str(folder))


def made(folder: Path, teacher: Teacher) -> Path:
    task = PairsTask(seed=1, teacher=teacher.hash, num_pairs=24, shard_size=10, prior=UNIFORM, solver=SOLVER)
    pair(Job(name="pairs", task=task, teacher=teacher.source), task, folder, ENGINE, Progress(folder, 24, []))
    return result_folder(folder)


def test_pairs_lie_in_the_space_of_the_model(tmp_path: Path, folded: Teacher) -> None:
    """Neither decoded nor of the image's shape: here the pixels of a sample are clamped, which the sample is not."""
    pairs = open_pairs(made(tmp_path, folded))[torch.arange(24)]
    assert pairs.noise.shape == pairs.samples.shape == (24, *SHAPE)
    with torch.inference_mode():
        again = Solver(**SOLVER)(folded.denoiser, pairs.noise, folded.conditions[pairs.keys])
    torch.testing.assert_close(again, pairs.samples, atol=1e-4, rtol=1e-3)
    codec = folded.denoiser.spec.codec
    assert codec.decode(pairs.samples).shape == (24, *PIXELS)
    assert not torch.allclose(codec.encode(codec.decode(pairs.samples * 10)), pairs.samples * 10)


def test_students_learn_from_pairs_in_that_space(tmp_path: Path, folded: Teacher, halves: Partition) -> None:
    pairs = open_pairs(made(tmp_path, folded))
    given = materials(folded, halves, pairs=pairs, sigma_init=2.5)
    dm = DMSection(num_updates=2, batch_size=4, regression=RegressionSection(batch_size=4, head_start=0.5))
    for stage in (DistributionMatching(dm, given), TeacherMatching(TSMSection(num_updates=2, batch_size=4), given)):
        assert len(list(steps(stage, ENGINE, 0))) == 2
