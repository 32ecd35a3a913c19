"""What runs a student: a `Generator` built from its folder. A new way to run one is a line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from msd.diffusion.denoiser import Condition, Denoiser, condition_to
from msd.diffusion.solvers import one_step
from msd.errors import WeightsError
from msd.networks.folder import load_denoiser


class Generator(Protocol):
    """A loaded one-step student. Calls from several threads at once are allowed."""

    @property
    def nbytes(self) -> int:
        """Memory its weights take."""
        ...

    @property
    def num_parameters(self) -> int: ...

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        """Pixels `[N, *pixel_shape]` float32 in [-1, 1] on the CPU, from standard-normal `noise` `[N, *noise_shape]`."""
        ...


class EagerGenerator:
    """A student run by torch, operation by operation."""

    def __init__(self, student: Denoiser, sigma_init: float):
        self.student = student
        self._sigma_init = sigma_init
        self._device = next(student.parameters()).device

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> EagerGenerator:
        """Load and verify the student in `folder`. Raises WeightsError, also for a denoiser that takes many steps."""
        student = load_denoiser(folder, device)
        if student.spec.sigma_init is None:
            raise WeightsError(f"{folder} is not a one-step student: its denoiser.json has no sigma_init.")
        return cls(student, student.spec.sigma_init)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.student.state_dict().values())

    @property
    def num_parameters(self) -> int:
        return self.student.num_parameters()

    @torch.inference_mode()
    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        samples = one_step(self.student, noise.to(self._device), condition_to(condition, self._device), self._sigma_init)
        return self.student.spec.codec.decode(samples).cpu()


BACKENDS: dict[str, Callable[[Path, torch.device], Generator]] = {"eager": EagerGenerator.load}
