"""`Cohort`: routes each condition to its one student, generates in one step, returns images in the order asked."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from msd.cohort.backends import BACKENDS, Generator
from msd.cohort.manifest import Manifest, read_manifest
from msd.cohort.residency import Residency
from msd.conditions.partition import Partition
from msd.conditions.table import Conditions, LabelConditions
from msd.diffusion.draw import image_noise
from msd.errors import ConditionError, WeightsError
from msd.networks.facts import WEIGHTS

MAX_SEED = 2**63 - 1


class Cohort:
    """K one-step students behind a router. A request costs one forward pass of one student. Threads may share a cohort.

    Students are loaded when first asked for and stay; with `max_bytes`, those not asked for longest go first.

        cohort = msd.Cohort.load("runs/demo/cohort")
        images = cohort.generate(labels=[3, 3, 7], seed=0)  # [3, 1, 8, 8] in [-1, 1]
    """

    def __init__(
        self,
        manifest: Manifest,
        device: torch.device | str = "cpu",
        *,
        backend: str = "eager",
        max_bytes: int | None = None,
    ):
        if backend not in BACKENDS:
            raise WeightsError(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
        self.manifest = manifest
        self.device = torch.device(device)
        self.conditions: Conditions = LabelConditions(manifest.partition.num_conditions)
        self.students: Residency[int, Generator] = Residency(
            load=lambda part: BACKENDS[backend](manifest.student(part), self.device),
            size=lambda part: _size_of(manifest.student(part) / WEIGHTS),
            max_bytes=max_bytes,
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: torch.device | str = "cpu",
        *,
        backend: str = "eager",
        max_bytes: int | None = None,
    ) -> Cohort:
        """Open a cohort's folder; its students' weights take at most `max_bytes` of memory at a time.

        Raises WeightsError or PartitionError when its pieces do not belong together.
        """
        return cls(read_manifest(Path(folder)), device, backend=backend, max_bytes=max_bytes)

    @property
    def partition(self) -> Partition:
        return self.manifest.partition

    @property
    def num_students(self) -> int:
        return self.partition.num_parts

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return self.manifest.noise_shape

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        return self.manifest.pixel_shape

    @contextmanager
    def student(self, part: int) -> Iterator[Generator]:
        """The student of a part, loaded and verified on first use, in memory while the block lasts. Raises WeightsError."""
        with self.students.borrow(part) as student:
            yield student

    def route(self, labels: Tensor | Sequence[int]) -> Tensor:
        """The part of each label, `[N]`. Raises PartitionError for a label outside the partition."""
        return self.partition.assign(labels)

    def generate(
        self,
        labels: Tensor | Sequence[int],
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Images `[N, *pixel_shape]` float32 in [-1, 1], one a label, in the order of `labels` (class numbers).

        Image i comes from noise of its own seed, `seed` + i or `seeds[i]` (fresh ones without either), or from `noise`
        `[N, *noise_shape]`, standard normal. So it depends on its student, seed and label alone: not on the other images,
        their order or the partition. Bit for bit, that is, on the same backend and while its student gets batches of one
        size, on one thread or two; batches of 1 to 256 differ by rounding, at most 1.2e-6 in the digits models on CPU.

        Raises PartitionError for a label outside the partition, ConditionError for seeds or noise that don't fit the labels.
        """
        keys = torch.as_tensor(labels, dtype=torch.long).reshape(-1).cpu()
        parts = self.route(keys)
        noise = self._noise(len(keys), seed, seeds, noise)
        images = torch.empty(len(keys), *self.pixel_shape)
        asked = parts.unique().tolist()
        for part in asked:
            mine = parts == part if len(asked) > 1 else slice(None)  # the usual request: nothing to take apart
            images[mine] = self._generate_part(part, noise[mine], keys[mine])
        return images

    def _generate_part(self, part: int, noise: Tensor, keys: Tensor) -> Tensor:
        with self.student(part) as student:
            return student.generate(noise, self.conditions[keys])

    def _noise(self, num: int, seed: int | None, seeds: Sequence[int] | None, noise: Tensor | None) -> Tensor:
        given = [name for name, value in (("seed", seed), ("seeds", seeds), ("noise", noise)) if value is not None]
        if len(given) > 1:
            raise ConditionError(f"{' and '.join(given)} each say what an image comes from; give one of them.")
        if noise is not None:
            wanted = (num, *self.noise_shape)
            if noise.shape != wanted:
                raise ConditionError(f"noise has shape {tuple(noise.shape)}, not {wanted}; give one sample a label.")
            return noise
        if seeds is None:
            first = secrets.randbits(62) if seed is None else seed
            seeds = range(first, first + num)
        if len(seeds) != num:
            raise ConditionError(f"there are {len(seeds)} seeds for {num} labels; give one a label.")
        for value in seeds:
            if not 0 <= value <= MAX_SEED:
                raise ConditionError(f"seed {value} is out of range; choose seeds from 0 to {MAX_SEED}.")
        return image_noise([int(value) for value in seeds], self.noise_shape)


def _size_of(weights: Path) -> int:
    return weights.stat().st_size if weights.is_file() else 0  # missing ones are for the backend to report
