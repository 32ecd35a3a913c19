"""What tests are built from: tiny untrained networks, saved as the product saves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.data.pairs import Pairs, PairSet, PairsPlan, make_pairs
from msd.diffusion.codec import Codec
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.fleet.jobs import Job, PairsTask, Resources, StageTask, TrainTask, result_folder, seal_result
from msd.networks.build import build_unet, unet_config
from msd.networks.folder import save_denoiser
from msd.recipe import DMSection, NetworkSection
from msd.stages.materials import Materials
from msd.teachers.facts import TeacherFacts
from msd.teachers.folder import Teacher, load_teacher
from msd.training.bundle import Bundle
from msd.training.engine import Engine

ENGINE = Engine.on("cpu")
UNIFORM = (0.1,) * 10


def tiny_denoiser(seed: int, sigma_init: float | None = None) -> Denoiser:
    """An untrained U-Net of 8 and 16 channels for 8x8 images of 10 classes."""
    network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = build_unet(unet_config((1, 8, 8), 10, network.model_dump()))
    return Denoiser(unet, DenoiserSpec(noise_shape=(1, 8, 8), num_conditions=10, sigma_init=sigma_init)).eval()


def unet(
    widths: Sequence[int], num_blocks: int = 1, size: int = 8, attended: Sequence[int] = (), **more: Any
) -> dict[str, Any]:
    """The configuration of a small U-Net of ten classes, with attention at some of its levels."""
    down = ["AttnDownBlock2D" if place in attended else "DownBlock2D" for place in range(len(widths))]
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    network = NetworkSection(block_out_channels=tuple(widths), layers_per_block=num_blocks, norm_num_groups=4)
    own = unet_config((1, size, size), 10, network.model_dump())
    return own | {"down_block_types": down, "up_block_types": up} | more


def adm_unet(widths: Sequence[int] = (192, 384, 576, 768), num_blocks: int = 3) -> dict[str, Any]:
    """The ADM U-Net of 64x64 and 1000 classes, attention at 32, 16 and 8."""
    return {
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 3,
        "num_class_embeds": 1000,
        "block_out_channels": list(widths),
        "layers_per_block": num_blocks,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "attention_head_dim": 64,
        "norm_eps": 1e-5,
        "freq_shift": 0,
        "resnet_time_scale_shift": "scale_shift",
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "down_block_types": ["ResnetDownsampleBlock2D"] + ["AttnDownBlock2D"] * 3,
        "up_block_types": ["AttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    }


def save_teacher(folder: Path, seed: int = 0) -> Teacher:
    """An untrained teacher of ten classes, saved and loaded."""
    folder.mkdir()
    save_denoiser(tiny_denoiser(seed), folder, role="teacher", prior=list(UNIFORM))
    return load_teacher(str(folder))


def save_student(
    folder: Path,
    partition: Partition,
    part: int,
    teacher: str = "0",
    codec: Codec | None = None,
    *,
    seed: int | None = None,
) -> Path:
    """A student's folder as a worker leaves it; each part's weights differ."""
    folder.mkdir(parents=True)
    student = tiny_denoiser(part if seed is None else seed, sigma_init=2.5)
    student.spec = replace(student.spec, codec=codec or student.spec.codec)
    save_denoiser(
        student,
        folder,
        role="student",
        partition_hash=partition.hash,
        part=part,
        conditions=list(partition.parts[part]),
        teacher={"source": "test", "hash": teacher, "licence": "Apache-2.0"},
        lineage=["teacher"],
        stages=[],
        task=f"task-{part}",
    )
    return folder


def random_pairs(num: int = 60) -> PairSet:
    """Pairs of noise with noise, classes in turn."""
    generator = torch.Generator().manual_seed(1)
    noise, samples = torch.randn(2, num, 1, 8, 8, generator=generator)
    return PairSet(noise, torch.arange(num) % 10, samples)


def in_memory(folder: Path) -> PairSet:
    """All pairs of a folder, read by safetensors itself."""
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return PairSet(*(torch.cat([shard[name] for shard in shards]) for name in ("noise", "keys", "samples")))


def materials(
    teacher: Teacher,
    partition: Partition,
    *,
    part: int = 0,
    pairs: Pairs | None = None,
    sigma_init: float = 80.0,
    bundle: Bundle | None = None,
    images: ImageSet | None = None,
    engine: Engine | None = None,
) -> Materials:
    """What a worker gathers for a student that starts as a copy of its teacher."""
    start = teacher.denoiser.copy()
    start.spec = replace(start.spec, sigma_init=sigma_init)
    return Materials(
        engine or Engine.on("cpu"),
        seed=0,
        bundle=bundle or Bundle(),
        teacher=teacher.denoiser,
        start=start,
        conditions=teacher.conditions,
        partition=partition,
        part=part,
        pairs=pairs,
        images=images,
    )


def teacher_facts(folder: str = "nowhere") -> TeacherFacts:
    """A teacher of ten classes that a plan can be made for, without any weights."""
    return TeacherFacts("packaged:test", Path(folder), "a" * 64, 10, UNIFORM, "Apache-2.0", (1, 8, 8), 0.002, 80.0)


def train_job(
    jobs: Path, teacher: Teacher, partition: Partition, part: int, dm: DMSection, *, checkpoint_every: int = 5
) -> Job:
    """A student's job as a plan makes it, with its pairs ready beside it."""
    pairs = PairsTask(seed=0, teacher=teacher.hash, num_pairs=600, shard_size=600, prior=UNIFORM)
    key = Job(name="made-pairs", task=pairs).key
    result = result_folder(jobs / key)
    if not result.exists():
        made = random_pairs(600)
        plan = PairsPlan(600, 600, UNIFORM, 0, pairs.hash)
        make_pairs(lambda noise, keys: made.samples, (1, 8, 8), result, plan)
        seal_result(result, pairs.hash)
    task = TrainTask(
        seed=3,
        stages=(StageTask(name="dm", settings=dm.model_dump(mode="json")),),
        teacher=teacher.hash,
        sigma_init=2.5,
        partition=partition.to_json(),
        part=part,
        pairs=pairs.hash,
    )
    resources = Resources(checkpoint_every=checkpoint_every)
    return Job(name=f"student-{part}", task=task, needs={"pairs": key}, teacher=teacher.source, resources=resources)
