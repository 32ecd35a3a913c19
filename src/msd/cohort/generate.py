"""`Cohort`: routes each condition to its one student, generates in one step, returns images in the order asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from msd.cohort.manifest import Manifest, read_manifest
from msd.conditions.partition import Partition
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.solvers import one_step
from msd.errors import ConditionError, WeightsError
from msd.networks.folder import load_denoiser


class Cohort:
    """K one-step students behind a router. A request costs one forward pass of one student.

    Students are loaded when first asked for, and stay.

        cohort = msd.Cohort.load("runs/demo/cohort")
        images = cohort.generate(labels=[3, 3, 7], seed=0)  # [3, 1, 8, 8] in [-1, 1]
    """

    def __init__(self, manifest: Manifest, device: torch.device | str = "cpu"):
        self.manifest = manifest
        self.device = torch.device(device)
        self._students: dict[int, Denoiser] = {}

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Cohort:
        """Open a cohort's folder. Raises WeightsError or PartitionError when its pieces do not belong together."""
        return cls(read_manifest(Path(folder)), device)

    @property
    def partition(self) -> Partition:
        return self.manifest.partition

    @property
    def num_students(self) -> int:
        return self.partition.num_parts

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.manifest.sample_shape

    def student(self, part: int) -> Denoiser:
        """The student of a part, loaded and verified on first use. Raises WeightsError."""
        if part not in self._students:
            folder = self.manifest.student(part)
            student = load_denoiser(folder, self.device)
            if student.spec.sigma_init is None:
                raise WeightsError(f"{folder} is not a one-step student: its denoiser.json has no sigma_init.")
            self._students[part] = student
        return self._students[part]

    def route(self, labels: Tensor | Sequence[int]) -> Tensor:
        """The part of each label, `[N]`. Raises PartitionError for a label outside the partition."""
        return self.partition.assign(labels)

    @torch.inference_mode()
    def generate(self, labels: Tensor | Sequence[int], seed: int | None = None, noise: Tensor | None = None) -> Tensor:
        """Images `[N, C, H, W]` float32 in [-1, 1], one a label, in the order of `labels` (class numbers).

        Noise is drawn from `seed` (fresh without one) for the request as a whole, so it does not depend on the partition; or
        give standard-normal `noise` `[N, C, H, W]`. Raises PartitionError for a label outside the partition.
        """
        conditions = torch.as_tensor(labels, dtype=torch.long).reshape(-1).cpu()
        parts = self.route(conditions)
        if noise is None:
            generator = torch.Generator()
            generator.manual_seed(seed) if seed is not None else generator.seed()
            noise = torch.randn(len(conditions), *self.sample_shape, generator=generator)
        elif noise.shape != (len(conditions), *self.sample_shape):
            wanted = (len(conditions), *self.sample_shape)
            raise ConditionError(f"noise has shape {tuple(noise.shape)}, not {wanted}; give one sample a label.")
        asked = parts.unique().tolist()
        if len(asked) == 1:  # the usual request: nothing to take apart and put together again
            return self._generate_part(asked[0], noise, conditions)
        images = torch.empty(noise.shape, dtype=torch.float32)
        for part in asked:
            mine = parts == part
            images[mine] = self._generate_part(part, noise[mine], conditions[mine])
        return images

    def _generate_part(self, part: int, noise: Tensor, conditions: Tensor) -> Tensor:
        student = self.student(part)
        sigma_init = student.spec.sigma_init or 0.0  # checked when the student was loaded
        samples = one_step(student, noise.to(self.device), conditions.to(self.device), sigma_init)
        return student.spec.scaling.decode(samples).cpu()
