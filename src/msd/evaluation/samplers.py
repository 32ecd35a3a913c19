"""What a table row measures: a way to get images for labels, with its cost. Teacher and cohort answer the same questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msd.cohort.generate import Cohort
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.diffusion.draw import noise_by_step
from msd.diffusion.solvers import Solver
from msd.recipe import read_solver_word

Generate = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""`(noise [N, *noise_shape], labels [N], seeds of the N images) -> pixels [N, C, H, W]` in [-1, 1].

Whatever a sampler draws beside the noise it draws by an image's seed, so no image depends on its batch.
"""


@dataclass(frozen=True)
class Sampler:
    """A way to get images, and what a request costs."""

    name: str
    generate: Generate
    num_function_evaluations: int
    num_parameters: int
    """Of the one network that serves a request."""

    def in_batches(
        self,
        noise: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        batch_size: int,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> Tensor:
        pieces = []
        for first in range(0, len(labels), batch_size):
            some = slice(first, first + batch_size)
            pieces.append(self.generate(noise[some], labels[some], seeds[some]))
            on_progress(len(labels[some]))
        return torch.cat(pieces)


def named_solver(word: str, spec: DenoiserSpec) -> Solver:
    """The solver that `evaluation.teacher` calls `word` (heun18), over the noise levels that a teacher was trained on."""
    method, num_steps = read_solver_word(word)
    return Solver(method, num_steps, spec.sigma_min, spec.sigma_max)


def teacher_sampler(teacher: Denoiser, solver: Solver) -> Sampler:
    """The teacher, sampled by `solver` on its device, called teacher-heun18 and the like."""

    @torch.inference_mode()
    def generate(noise: Tensor, labels: Tensor, seeds: Sequence[int]) -> Tensor:
        device = next(teacher.parameters()).device
        fresh = noise_by_step(seeds, noise.shape[1:]) if solver.is_stochastic else None
        samples = solver(teacher, noise.to(device), labels.to(device), step_noise=fresh)
        return teacher.spec.codec.decode(samples).cpu()

    return Sampler(f"teacher-{solver.name}", generate, solver.num_function_evaluations, teacher.num_parameters())


def cohort_sampler(name: str, cohort: Cohort) -> Sampler:
    """A cohort, each label answered by its one student in one evaluation."""
    with cohort.student(0) as student:
        num_parameters = student.num_parameters
    return Sampler(name, lambda noise, labels, _: cohort.generate(labels, noise=noise), 1, num_parameters)
