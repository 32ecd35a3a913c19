"""What DM and ADM share: the student's own samples, the matching gradient on them, and the critic that follows them."""

from __future__ import annotations

import torch
from torch import Tensor

from msd.diffusion.denoiser import Denoiser, per_sample
from msd.diffusion.draw import Draw
from msd.diffusion.noise import KarrasLaw, LogNormalLaw
from msd.diffusion.solvers import one_step
from msd.objectives.denoising import denoising_loss
from msd.objectives.dm import dm_gradient
from msd.recipe import DMSection
from msd.stages.materials import Materials
from msd.training.loop import Loss
from msd.training.roles import Role


class Matching:
    """Student against critic on one part's keys, drawn by the part's prior. The teacher is frozen and has no role."""

    def __init__(self, settings: DMSection, materials: Materials, student: Role[Denoiser], critic: Role[Denoiser]):
        self.student, self.critic, self.teacher = student, critic, materials.need_teacher()
        self.conditions, self._partition, self._part = materials.need_part()
        spec = self.student.module.spec
        if spec.sigma_init is None:
            raise ValueError("a student has an input noise level")
        self._sigma_init = spec.sigma_init
        self._noise_shape, self._sigma_data = self.teacher.spec.noise_shape, self.teacher.spec.sigma_data
        self._batch_size = settings.batch_size
        self._matching_law = KarrasLaw(settings.sigma_low, settings.sigma_high)
        self._critic_law = LogNormalLaw(settings.critic_log_sigma_mean, settings.critic_log_sigma_deviation)
        self._fakes: tuple[Tensor, Tensor] | None = None

    def part_batch(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Noise `[B, ...]` and keys `[B]` of the student's own part."""
        keys = self._partition.sample(self._part, self._batch_size, draw)
        return draw.normal(self._batch_size, *self._noise_shape), keys

    def generate(self, noise: Tensor, keys: Tensor) -> Tensor:
        """The student's samples `[B, ...]`, in one step."""
        return one_step(self.student, noise, self.conditions[keys], self._sigma_init)

    @torch.no_grad()
    def gradient(self, fakes: Tensor, keys: Tensor, draw: Draw) -> Tensor:
        """Where the samples `[B, ...]` should move, and a note of them for the critic's coming turn."""
        fakes = fakes.detach()
        self._fakes = (fakes, keys)
        sigma = self._matching_law.sample(self._batch_size, draw)
        noised = fakes + per_sample(sigma, fakes) * draw.normal(self._batch_size, *self._noise_shape)
        condition = self.conditions[keys]
        return dm_gradient(fakes, self.teacher(noised, sigma, condition), self.critic(noised, sigma, condition))

    def critic_loss(self, draw: Draw) -> Loss:
        """Denoising of the student turn's own samples; a second critic turn of a step gets fresh ones."""
        if self._fakes is None:
            noise, keys = self.part_batch(draw)
            with torch.no_grad():
                fakes = self.generate(noise, keys)
        else:
            (fakes, keys), self._fakes = self._fakes, None
        sigma = self._critic_law.sample(self._batch_size, draw)
        noised = fakes + per_sample(sigma, fakes) * draw.normal(self._batch_size, *self._noise_shape)
        estimate = self.critic(noised, sigma, self.conditions[keys])
        return Loss(denoising_loss(estimate, fakes, sigma, self._sigma_data))
