"""Pairs: (noise, key, sample) in checksummed safetensors shards, made once and resumed shard by shard.

A shard's content depends only on the seed and its index, so a missing or damaged one is remade exactly.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field
from torch import Tensor

from msd import checks
from msd.diffusion.draw import Draw
from msd.errors import DataError, TrainingError
from msd.files import has_sha256, replacing, sha256_file, write_json
from msd.networks.tensors import save_tensors
from msd.reading import Kind, Name, Sha256, Stored, read_model, set_aside

SCHEMA = 2
MANIFEST = "pairs.json"
AGAIN = "run `msd pairs` again, which makes what is missing"
KIND = Kind("a list of pair shards", AGAIN, DataError, schema=SCHEMA)


class PairsManifest(Stored):
    """What `pairs.json` says: whose pairs, how many there are to be, and the shards that are made, by file name."""

    identity: str
    num_pairs: int = Field(ge=1)
    shards: dict[Name, Sha256]


Solve = Callable[[Tensor, Tensor], Tensor]
"""What answers the noise: `(noise [N, ...], keys [N]) -> samples [N, ...]`, a teacher's ODE or a cohort's one step."""


class Pairs(Protocol):
    """Pairs wherever they lie, `keys` `[P]` int64 in memory; what is asked for by index `[n]` is copied into memory.

    Noise and samples are the model's, before any codec decodes them: of its shape, not of the images'.
    """

    @property
    def keys(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor, /) -> PairSet: ...

    def samples_of(self, index: Tensor, /) -> Tensor:
        """The samples alone, `[n, ...]`."""
        ...


@dataclass(frozen=True)
class PairSet:
    """Pairs in memory, in the model's space: `noise` and `samples` `[P, ...]`, `keys` `[P]` int64."""

    noise: Tensor
    keys: Tensor
    samples: Tensor

    def __post_init__(self) -> None:
        """Raises DataError when the three do not belong together."""
        if not all(isinstance(value, Tensor) for value in (self.noise, self.keys, self.samples)):
            raise DataError("pairs are noise, keys and samples; give three tensors.")
        if (
            self.noise.shape != self.samples.shape
            or self.keys.shape != self.noise.shape[:1]
            or self.keys.dtype != torch.int64
        ):
            shapes = ", ".join(str(tuple(value.shape)) for value in (self.noise, self.keys, self.samples))
            raise DataError(f"noise, keys and samples have shapes {shapes}; give [P, ...], int64 [P] and [P, ...].")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Tensor) -> PairSet:
        return PairSet(self.noise[index], self.keys[index], self.samples[index])

    def samples_of(self, index: Tensor) -> Tensor:
        return self.samples[index]


class PairStream:
    """Random batches of a pair set: `own_share` of each from the pairs that `own` `[P]` marks, the rest from all of them.

    Without replacement within a batch unless allowed. Raises DataError when a batch cannot be filled, naming the recipe's
    `section`.
    """

    def __init__(
        self,
        pairs: Pairs,
        own: Tensor,
        *,
        batch_size: int,
        own_share: float,
        replacement: bool,
        section: str = "dm.regression",
    ):
        checks.whole(batch_size, f"{section}.batch_size", 1, checks.MAX_BATCH, error=DataError)
        checks.number(own_share, f"{section}.own_share", 0, 1, error=DataError)
        self._pairs, self._own = pairs, own.nonzero().flatten()
        self._num_own = round(own_share * batch_size)
        self._num_rest = batch_size - self._num_own
        self._replacement = replacement
        for wanted, there, whose in ((self._num_own, len(self._own), "its own"), (self._num_rest, len(pairs), "all")):
            if wanted and (there == 0 or (wanted > there and not replacement)):
                raise DataError(
                    f"a batch of {wanted} pairs cannot be drawn from {whose} {there}; make more (pairs.num_pairs), or lower "
                    f"{section}.batch_size."
                )

    def batch(self, draw: Draw) -> PairSet:
        """This process's slice of one batch, where the pairs are: on the CPU."""
        chosen = []
        if self._num_own:
            chosen.append(self._own[draw.indices(len(self._own), self._num_own, replacement=self._replacement)])
        if self._num_rest:
            chosen.append(draw.indices(len(self._pairs), self._num_rest, replacement=self._replacement))
        return self._pairs[draw.slice.of(torch.cat(chosen))]


@dataclass(frozen=True)
class PairsPlan:
    """How many pairs, in shards of what size, with keys drawn by `weights` `[num_conditions]`, from which seed.

    Raises DataError for fewer than one, weights that are no distribution, or a seed outside 0 to 2^63 - 1.
    `identity` names the rest of what decides their content (whose samples, by which solver): stored, and compared.
    """

    num_pairs: int
    shard_size: int
    weights: tuple[float, ...]
    seed: int
    identity: str

    def __post_init__(self) -> None:
        checks.whole(self.num_pairs, "num_pairs", 1, error=DataError)
        checks.whole(self.shard_size, "shard_size", 1, error=DataError)
        checks.seed(self.seed, error=DataError)
        weights = [
            checks.number(weight, f"weights[{index}]", 0, checks.MAX_FLOAT, error=DataError)
            for index, weight in enumerate(checks.items(self.weights, "weights", "one number a class", error=DataError))
        ]
        if not sum(weights) > 0:
            raise DataError("the weights of all classes are 0; give one a class, at least one above 0.")
        checks.instance(self.identity, str, "identity", "name whose samples they are", error=DataError)

    @property
    def num_shards(self) -> int:
        return -(-self.num_pairs // self.shard_size)

    def size_of(self, shard: int) -> int:
        return min(self.shard_size, self.num_pairs - shard * self.shard_size)

    def stored(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "identity": self.identity, "num_pairs": self.num_pairs}


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
    solve: Solve,
    noise_shape: tuple[int, ...],
    folder: str | Path,
    plan: PairsPlan,
    on_progress: Callable[[int, bool], None] = lambda pairs, made: None,
) -> PairsReport:
    """Make what is missing or damaged in `folder`; tells `on_progress` of each shard how many pairs it has, and whether
    they were made just now.

    `solve` answers `noise` `[N, *noise_shape]` float32 and `keys` `[N]` int64 with samples of the noise's shape. Raises
    DataError when the folder holds other pairs, a shard would not fit into memory or samples have another shape;
    TrainingError when samples are not finite.
    """
    folder = checks.path(folder, "the pairs' folder", error=DataError)
    checks.instance(plan, PairsPlan, "plan", "give a PairsPlan", error=DataError)
    noise_shape = checks.shape(noise_shape, "noise_shape", error=DataError)
    # Noise and sample, in float32: of one shard, as a training maps them and holds no more than a batch.
    each = 2 * 4 * math.prod(noise_shape)
    checks.fits_memory(plan.size_of(0), each, "pairs of a shard", "lower pairs.shard_size", error=DataError)
    manifest = folder / MANIFEST
    stored = _read_if_whole(manifest)
    if stored is not None and (stored.identity, stored.num_pairs) != (plan.identity, plan.num_pairs):
        raise DataError(f"{folder} holds pairs of another teacher or recipe; remove it, or choose another --out.")
    checksums: dict[str, str] = dict(stored.shards) if stored else {}
    kept, made, damaged = [], [], []
    for shard in range(plan.num_shards):
        name = shard_name(shard)
        path = folder / name
        is_kept = name in checksums and has_sha256(path, checksums[name])
        if is_kept:
            kept.append(name)
        else:
            if name in checksums:
                damaged.append(name)
            _make_shard(solve, noise_shape, path, plan, shard)
            made.append(name)
            checksums[name] = sha256_file(path)
            write_json(manifest, plan.stored() | {"shards": checksums})
        on_progress(plan.size_of(shard), not is_kept)
    return PairsReport(plan.num_pairs, kept, made, damaged)


def _read_if_whole(manifest: Path) -> PairsManifest | None:
    """The list of shards; None where there is none, or a broken one: a shard is known by its seed and index alone."""
    if not os.path.lexists(manifest):
        return None
    try:
        return read_model(manifest, PairsManifest, KIND)
    except DataError as error:
        set_aside(manifest, error)
        return None


def _make_shard(solve: Solve, noise_shape: tuple[int, ...], path: Path, plan: PairsPlan, shard: int) -> None:
    draw = Draw(plan.seed, "pairs", shard)
    num = plan.size_of(shard)
    keys = draw.choice(torch.tensor(plan.weights), num)
    noise = draw.normal(num, *noise_shape)
    with torch.inference_mode():
        samples = solve(noise, keys)
    if not isinstance(samples, Tensor) or samples.shape != noise.shape or not samples.is_floating_point():
        raise DataError(f"what should answer noise gave {checks.shown(samples)}; give floats of shape {tuple(noise.shape)}.")
    samples = samples.float().cpu()
    if bad := checks.num_not_finite(samples):
        raise TrainingError(
            f"{bad} samples of {path.name} are not finite; check the teacher "
            "and pairs.solver (more steps, a narrower range of noise)."
        )
    tensors = {"noise": noise, "keys": keys, "samples": samples}
    with replacing(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_tensors(tensors, temporary)
