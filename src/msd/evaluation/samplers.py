"""What a table row measures: a way to get images for labels, with its cost. Teacher and cohort answer the same questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from msd.cohort.generate import Cohort
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.solvers import Solver


@dataclass(frozen=True)
class Sampler:
    """`generate(noise [N, *noise_shape], labels [N]) -> pixels [N, C, H, W]` in [-1, 1], and what a request costs."""

    name: str
    generate: Callable[[Tensor, Tensor], Tensor]
    num_function_evaluations: int
    num_parameters: int
    """Of the one network that serves a request."""

    def in_batches(
        self, noise: Tensor, labels: Tensor, batch_size: int, on_progress: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        pieces = []
        for some_noise, some_labels in zip(noise.split(batch_size), labels.split(batch_size), strict=True):
            pieces.append(self.generate(some_noise, some_labels))
            on_progress(len(some_labels))
        return torch.cat(pieces)


def teacher_sampler(name: str, teacher: Denoiser, solver: Solver) -> Sampler:
    """The teacher, sampled by `solver`; noise `[N, *noise_shape]` goes to the teacher's device."""

    @torch.inference_mode()
    def generate(noise: Tensor, labels: Tensor) -> Tensor:
        device = next(teacher.parameters()).device
        return teacher.spec.codec.decode(solver(teacher, noise.to(device), labels.to(device))).cpu()

    return Sampler(name, generate, solver.num_function_evaluations, teacher.num_parameters())


def cohort_sampler(name: str, cohort: Cohort) -> Sampler:
    """A cohort, each label answered by its one student in one evaluation."""
    with cohort.student(0) as student:
        num_parameters = student.num_parameters
    return Sampler(name, lambda noise, labels: cohort.generate(labels, noise=noise), 1, num_parameters)
