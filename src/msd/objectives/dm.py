"""Distribution matching (DMD, arXiv 2311.18828): the KL gradient between the student's and the teacher's noised samples."""

from __future__ import annotations

import torch
from torch import Tensor

from msd.diffusion.denoiser import per_sample


def dm_gradient(student_x0: Tensor, teacher_x0: Tensor, critic_x0: Tensor, *, floor: float = 1e-5) -> Tensor:
    """Direction d loss / d student_x0 per sample, `[N, ...]` (DMD eq. 7 and 8 with x0-prediction and alpha = 1).

    g = (critic_x0 - teacher_x0) / mean|student_x0 - teacher_x0|. Descending it moves samples towards the teacher's estimate
    and away from the critic's. Computed in float32; `floor` keeps the normaliser away from zero where student and
    teacher agree. Samples whose gradient is not finite get zero, as one bad noise level should not end a run.
    """
    student_x0, teacher_x0, critic_x0 = student_x0.float(), teacher_x0.float(), critic_x0.float()
    distance = (student_x0 - teacher_x0).abs().flatten(1).mean(1).clamp_min(floor)
    gradient = (critic_x0 - teacher_x0) / per_sample(distance, student_x0)
    finite = gradient.flatten(1).isfinite().all(1)
    return torch.where(per_sample(finite, gradient), gradient, torch.zeros_like(gradient))


def dm_loss(student_x0: Tensor, gradient: Tensor) -> Tensor:
    """Scalar whose gradient with respect to `student_x0` is `gradient` / numel (the 0.5 mse form of DMD2's code).

    The mean over elements makes the term's scale independent of image size relative to the other mean-reduced losses.
    """
    target = (student_x0 - gradient).detach()
    return 0.5 * ((student_x0 - target) ** 2).mean()
