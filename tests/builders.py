"""What tests are built from: tiny untrained networks, saved as the product saves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from msd.conditions.partition import Partition
from msd.diffusion.codec import Codec
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.networks.build import build_unet, unet_config
from msd.networks.folder import save_denoiser
from msd.recipe import NetworkSection

UNIFORM = (0.1,) * 10


def tiny_denoiser(seed: int, sigma_init: float | None = None) -> Denoiser:
    """An untrained U-Net of 8 and 16 channels for 8x8 images of 10 classes."""
    network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = build_unet(unet_config((1, 8, 8), 10, network.model_dump()))
    return Denoiser(unet, DenoiserSpec(noise_shape=(1, 8, 8), num_conditions=10, sigma_init=sigma_init)).eval()


def save_student(folder: Path, partition: Partition, part: int, teacher: str = "0", codec: Codec | None = None) -> Path:
    """A student's folder as a worker leaves it; each part's weights differ."""
    folder.mkdir(parents=True)
    student = tiny_denoiser(part, sigma_init=2.5)
    student.spec = replace(student.spec, codec=codec or student.spec.codec)
    save_denoiser(
        student,
        folder,
        role="student",
        partition_hash=partition.hash,
        part=part,
        teacher={"source": "test", "hash": teacher, "licence": "Apache-2.0"},
        lineage=["teacher"],
        stages=[],
        task=f"task-{part}",
    )
    return folder
