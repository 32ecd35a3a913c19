"""`Cohort`: routes each condition to its one student, generates in one step, returns images in the order asked."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from msd import checks
from msd.cohort.backends import BACKENDS, Generator
from msd.cohort.manifest import Manifest, read_manifest
from msd.cohort.residency import Residency
from msd.conditions.names import with_numbers
from msd.conditions.partition import Partition
from msd.conditions.table import Conditions, LabelConditions
from msd.diffusion.draw import image_noise
from msd.errors import ConditionError, PartitionError, WeightsError
from msd.networks.facts import WEIGHTS

SMALL = 2**20
"""Bytes of images below which nobody asks how much memory there is."""


class Cohort:
    """K one-step students behind a router. A request costs one forward pass of one student. Threads may share a cohort.

    Students are loaded when first asked for and stay; with `max_bytes`, those not asked for longest go first.

        cohort = msd.Cohort.load("runs/demo/cohort")
        images = cohort.generate(labels=[3, 3, 7], seed=0)  # [3, 1, 8, 8] in [-1, 1]
        images = cohort.generate(["cat", "dog", 3], seed=0)  # where classes have names: `cohort.classes`
    """

    def __init__(
        self,
        manifest: Manifest,
        device: torch.device | str = "cpu",
        *,
        backend: str = "eager",
        max_bytes: int | None = None,
    ):
        self.device = checks.device(device)
        checks.choice(backend, BACKENDS, "backend", error=WeightsError)
        self.manifest = checks.instance(manifest, Manifest, "manifest", "use Cohort.load(folder)", error=WeightsError)
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
        """Open a cohort's folder (str or Path); its students' weights take at most `max_bytes` of memory at a time.

        Raises WeightsError or PartitionError when its pieces do not belong together or the backend is unknown, and RunError
        for a device that is not there, before anything is read.
        """
        device, folder = checks.device(device), checks.path(folder, "a cohort's folder", error=WeightsError)
        return cls(read_manifest(folder), device, backend=backend, max_bytes=max_bytes)

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

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class, in the order of their numbers; the numbers where they have no names."""
        return self.manifest.classes

    @contextmanager
    def student(self, part: int) -> Iterator[Generator]:
        """The student of a part, loaded and verified on first use, in memory while the block lasts.

        Raises WeightsError, and PartitionError for a part that there is not.
        """
        part = checks.whole(part, "part", 0, self.num_students - 1, error=PartitionError)
        with self.students.borrow(part) as student:
            yield student

    def keys(self, labels: Tensor | Sequence[int | str]) -> Tensor:
        """The class number of each label, `[N]` int64 on the CPU, of a list of names and numbers, or an array or tensor of
        whole numbers.

        A text is a name before it is a number: "3" is the class called "3", and class number 3 only if none is called so;
        the number 3 is always class number 3. Names are compared as Unicode's NFC. Raises ConditionError for an unknown
        name, with the nearest, and PartitionError for what is no list of class numbers of the partition.
        """
        numbers = with_numbers(labels, self.classes)
        return checks.class_numbers(numbers, self.partition.num_conditions, error=PartitionError)

    def route(self, labels: Tensor | Sequence[int | str]) -> Tensor:
        """The part of each label (a name or a number, as `keys` takes them), `[N]`.

        Raises ConditionError for an unknown name, PartitionError for what is no list of class numbers of the partition.
        """
        return self.partition.assign(with_numbers(labels, self.classes))

    def generate(
        self,
        labels: Tensor | Sequence[int | str],
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Images `[N, *pixel_shape]` float32 in [-1, 1], one a label, in their order: class names and numbers
        `[N]` in a list, or an array or a tensor of whole numbers (`keys` says which class a text stands for).

        Image i comes from noise of its own seed, `seed` + i or `seeds[i]` (0 to 2^63 - 1; fresh ones without either), or
        from `noise` `[N, *noise_shape]`, standard normal floats (float64 is cast to float32). So it depends on its student,
        seed and label alone: not on the other images,
        their order or the partition. Bit for bit, that is, on the same backend and while its student gets batches of one
        size, on one thread or two; batches of 1 to 256 differ by rounding, at most 1.2e-6 in the digits models on CPU.

        Raises PartitionError for labels outside the partition, and for floats, bools and one-hot rows; ConditionError for
        unknown names, for seeds or noise that don't fit the labels, for noise that is not finite, and for more images than
        fit into memory; WeightsError when a student's samples are not finite.
        """
        keys = self.keys(labels)
        parts = self.partition.assign(keys)
        self.check_memory(len(keys), parts)
        noise = self._noise(len(keys), seed, seeds, noise)
        images = torch.empty(len(keys), *self.pixel_shape)
        asked = parts.unique().tolist()
        for part in asked:
            mine = parts == part if len(asked) > 1 else slice(None)  # the usual request: nothing to take apart
            images[mine] = self._generate_part(part, noise[mine], keys[mine])
        return images

    def check_memory(self, num: int, parts: Tensor | None = None) -> None:
        """Raises ConditionError when `num` images, and the work on those of the most asked of `parts` `[num]`, don't fit."""
        # Noise and pixels, as a whole and as the part's own.
        each = 2 * 4 * (math.prod(self.noise_shape) + math.prod(self.pixel_shape))
        if num * each < SMALL:
            return
        error, advice = ConditionError, "ask for fewer at a time"
        checks.fits_memory(num, each, "images", advice, error=error)
        if parts is not None:
            counts = parts.bincount()
            with self.student(int(counts.argmax())) as student:
                each += student.bytes_per_image * int(counts.max()) // num
            checks.fits_memory(num, each, "images", advice, error=error)

    def _generate_part(self, part: int, noise: Tensor, keys: Tensor) -> Tensor:
        with self.student(part) as student:
            return student.generate(noise, self.conditions[keys])

    def _noise(self, num: int, seed: int | None, seeds: Sequence[int] | None, noise: Tensor | None) -> Tensor:
        given = [name for name, value in (("seed", seed), ("seeds", seeds), ("noise", noise)) if value is not None]
        if len(given) > 1:
            raise ConditionError(f"{' and '.join(given)} each say what an image comes from; give one of them.")
        if noise is not None:
            return checks.noise(noise, (num, *self.noise_shape))
        if seeds is None:
            first = secrets.randbits(62) if seed is None else checks.seed(seed, error=ConditionError)
            seeds = range(first, first + num)
        else:
            seeds = checks.items(seeds, "seeds", "whole numbers, one a label", error=ConditionError)
        if len(seeds) != num:
            raise ConditionError(f"there are {len(seeds)} seeds for {num} labels; give one a label.")
        return image_noise(seeds, self.noise_shape)


def _size_of(weights: Path) -> int:
    return weights.stat().st_size if weights.is_file() else 0  # missing ones are for the backend to report
