"""Pairs: (noise, condition, teacher's ODE sample) in checksummed safetensors shards, made once and resumed shard by shard.

A shard's content depends only on the seed and its index, so a missing or damaged one is remade exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd.diffusion.solvers import Solver
from msd.errors import DataError
from msd.files import read_json, replacing, sha256_file, write_json
from msd.teachers.folder import Teacher

SCHEMA = 1
MANIFEST = "pairs.json"


@dataclass(frozen=True)
class PairSet:
    """All pairs in memory, in the model's space: `noise` and `samples` `[P, C, H, W]`, `conditions` `[P]`."""

    noise: Tensor
    conditions: Tensor
    samples: Tensor

    def __len__(self) -> int:
        return len(self.conditions)

    def select(self, mask: Tensor) -> PairSet:
        return PairSet(self.noise[mask], self.conditions[mask], self.samples[mask])

    def joined(self, other: PairSet) -> PairSet:
        return PairSet(
            torch.cat([self.noise, other.noise]),
            torch.cat([self.conditions, other.conditions]),
            torch.cat([self.samples, other.samples]),
        )

    def to(self, device: torch.device) -> PairSet:
        return PairSet(self.noise.to(device), self.conditions.to(device), self.samples.to(device))

    def batch(self, size: int, generator: torch.Generator, with_replacement: bool = False) -> PairSet:
        """A random batch; without replacement unless allowed. Raises DataError when it cannot be filled."""
        if with_replacement:
            index = torch.randint(len(self), (size,), generator=generator, device=generator.device)
        elif size > len(self):
            raise DataError(f"a batch of {size} pairs cannot be drawn from {len(self)}; make more (pairs.num_pairs).")
        else:
            index = torch.randperm(len(self), generator=generator, device=generator.device)[:size]
        return PairSet(self.noise[index], self.conditions[index], self.samples[index])


@dataclass(frozen=True)
class PairsPlan:
    """What the pair set is to contain; `prior` `[num_conditions]` is what conditions are drawn from."""

    num_pairs: int
    shard_size: int
    solver: Solver
    prior: tuple[float, ...]
    seed: int

    @property
    def num_shards(self) -> int:
        return -(-self.num_pairs // self.shard_size)

    def size_of(self, shard: int) -> int:
        return min(self.shard_size, self.num_pairs - shard * self.shard_size)

    def identity(self, teacher: Teacher) -> dict[str, Any]:
        return {"schema": SCHEMA, "teacher": teacher.hash, "plan": asdict(self) | {"prior": list(self.prior)}}


@dataclass(frozen=True)
class PairsReport:
    """What `make_pairs` found and did; shards are named by file."""

    num_pairs: int
    kept: list[str]
    made: list[str]
    damaged: list[str]


def shard_name(shard: int) -> str:
    return f"shard-{shard:04d}.safetensors"


def make_pairs(
    teacher: Teacher, folder: Path, plan: PairsPlan, on_progress: Callable[[int], None] = lambda pairs: None
) -> PairsReport:
    """Make what is missing or damaged in `folder`; calls `on_progress` with the number of pairs just finished.

    Raises DataError when the folder holds pairs of another teacher or plan.
    """
    identity = plan.identity(teacher)
    manifest = folder / MANIFEST
    checksums: dict[str, str] = {}
    if manifest.exists():
        stored = read_json(manifest, what="the list of pair shards", error=DataError)
        if any(stored.get(key) != value for key, value in identity.items()):
            raise DataError(f"{folder} holds pairs of another teacher or recipe; remove it, or choose another --out.")
        checksums = stored["shards"]
    kept, made, damaged = [], [], []
    for shard in range(plan.num_shards):
        name = shard_name(shard)
        path = folder / name
        if name in checksums and path.exists() and sha256_file(path) == checksums[name]:
            kept.append(name)
        else:
            if name in checksums:
                damaged.append(name)
            _make_shard(teacher, path, plan, shard)
            made.append(name)
            checksums[name] = sha256_file(path)
            write_json(manifest, identity | {"shards": checksums})
        on_progress(plan.size_of(shard))
    return PairsReport(plan.num_pairs, kept, made, damaged)


def _make_shard(teacher: Teacher, path: Path, plan: PairsPlan, shard: int) -> None:
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + shard)
    num = plan.size_of(shard)
    conditions = torch.multinomial(torch.tensor(plan.prior), num, replacement=True, generator=generator)
    noise = torch.randn(num, *teacher.denoiser.spec.noise_shape, generator=generator)
    device = next(teacher.denoiser.parameters()).device
    with torch.inference_mode():
        samples = plan.solver(teacher.denoiser, noise.to(device), conditions.to(device)).cpu()
    with replacing(path) as temporary:
        save_file({"noise": noise, "conditions": conditions, "samples": samples}, temporary)


def load_pairs(folder: Path) -> PairSet:
    """Read every shard, checking each against its checksum. Raises DataError naming a missing or damaged one."""
    from safetensors.torch import load_file

    stored = read_json(folder / MANIFEST, what="the list of pair shards", error=DataError)
    shards = []
    for name, checksum in sorted(stored["shards"].items()):
        path = folder / name
        if not path.is_file() or sha256_file(path) != checksum:
            raise DataError(f"{path} is missing or damaged (its checksum is not the recorded one); `msd pairs` remakes it.")
        shards.append(load_file(path))
    pairs = PairSet(*(torch.cat([shard[key] for shard in shards]) for key in ("noise", "conditions", "samples")))
    wanted = stored["plan"]["num_pairs"]
    if len(pairs) != wanted:
        raise DataError(
            f"{folder} holds {len(pairs)} of {wanted} pairs; run `msd pairs` again, it goes on where it stopped."
        )
    return pairs
