"""Small real things that several tests share: a tiny trained-shape teacher, a cohort made of it, runs of the smoke recipe."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from msd.cohort.manifest import Manifest, assemble
from msd.conditions.partition import Partition
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.networks.build import build_unet, unet_config
from msd.networks.folder import denoiser_hash, load_denoiser, save_denoiser
from msd.recipe import NetworkSection
from msd.teachers.folder import Teacher

torch.set_num_threads(1)

UNIFORM = (0.1,) * 10


def tiny_denoiser(seed: int, sigma_init: float | None = None) -> Denoiser:
    """An untrained U-Net of 8 and 16 channels for 8x8 images of 10 classes."""
    network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = build_unet(unet_config((1, 8, 8), 10, network.model_dump()))
    return Denoiser(unet, DenoiserSpec(sample_shape=(1, 8, 8), num_conditions=10, sigma_init=sigma_init)).eval()


def save_student(folder: Path, partition: Partition, part: int) -> Path:
    """A student's folder as a worker leaves it; each part's weights differ."""
    folder.mkdir(parents=True)
    save_denoiser(
        tiny_denoiser(part, sigma_init=2.5),
        folder,
        role="student",
        partition_hash=partition.hash,
        part=part,
        teacher={"source": "test", "hash": "0", "licence": "Apache-2.0"},
        lineage=["teacher"],
        stages=[],
    )
    return folder


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    folder = tmp_path / "teacher"
    folder.mkdir()
    save_denoiser(tiny_denoiser(0), folder, role="teacher", prior=list(UNIFORM))
    return Teacher(load_denoiser(folder), str(folder), denoiser_hash(folder), "Apache-2.0", {"prior": list(UNIFORM)})


@pytest.fixture
def halves() -> Partition:
    return Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM, method="file")


@pytest.fixture
def cohort(tmp_path: Path, halves: Partition) -> Manifest:
    students = [save_student(tmp_path / f"student-{part}", halves, part) for part in range(2)]
    return assemble(tmp_path / "cohort", "test", halves, students, recipe={})


