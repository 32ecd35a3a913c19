"""Distribution matching: makes one part's one-step student from DMD's KL gradient, a critic and paired regression."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from msd.conditions.partition import Partition
from msd.data.pairs import PairSet
from msd.diffusion.denoiser import Denoiser, per_sample
from msd.diffusion.draw import Draw
from msd.diffusion.noise import KarrasLaw, LogNormalLaw
from msd.diffusion.solvers import one_step
from msd.errors import DataError
from msd.objectives.denoising import denoising_loss
from msd.objectives.dm import dm_gradient, dm_loss
from msd.objectives.regression import regression_loss
from msd.recipe import DMSection, RoleSection
from msd.training.engine import Engine
from msd.training.loop import Loss, Turn
from msd.training.roles import Role, RoleSpec


def _draw(generator: torch.Generator) -> Draw:
    return Draw(int(torch.randint(2**62, (1,), generator=generator, device=generator.device)), "dm", device=generator.device)


class DistributionMatching:
    """Roles `student` (teacher copy, averaged) and `critic` (teacher copy); the teacher is frozen and has no role.

    One step is one student turn, then `critic_turns` critic turns, the first of them on the student turn's own samples; in
    the head start, the student's regression turn alone.
    Two condition streams that never mix (DESIGN 5.6): `part_conditions` by the part's prior for the DM term and the critic,
    and the pairs, by default all of them whatever the part.
    """

    name = "dm"

    def __init__(
        self,
        settings: DMSection,
        teacher: Denoiser,
        partition: Partition,
        part: int,
        pairs: PairSet | None,
        engine: Engine,
        sigma_init: float = 80.0,
    ):
        self.num_steps = settings.num_updates
        self.teacher = teacher.to(engine.device).eval().requires_grad_(False)
        self.student = copy.deepcopy(teacher)
        self.student.spec = replace(teacher.spec, sigma_init=sigma_init)
        self.critic = copy.deepcopy(teacher)
        num_critic = max(1, (settings.num_updates - settings.num_head_start) * settings.critic_turns)
        self.roles = {
            "student": Role(self.student, self._role(settings, settings.num_updates)),
            "critic": Role(self.critic, self._role(settings.critic_role, num_critic)),
        }
        self._settings, self._sigma_init = settings, sigma_init
        self._partition, self._part = partition, part
        self._pairs = self._pair_stream(pairs, engine)
        self._matching_law = KarrasLaw(settings.sigma_low, settings.sigma_high)
        self._critic_law = LogNormalLaw(settings.critic_log_sigma_mean, settings.critic_log_sigma_deviation)
        self._sigma_data = teacher.spec.sigma_data
        self._fakes: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def _role(settings: RoleSection, num_updates: int) -> RoleSpec:
        return RoleSpec(num_updates=num_updates, **{name: getattr(settings, name) for name in RoleSection.model_fields})

    def _pair_stream(self, pairs: PairSet | None, engine: Engine) -> PairSet | None:
        regression = self._settings.regression
        if regression.weight == 0:
            return None
        if pairs is None:
            raise DataError("the regression loss needs pairs; make them with `msd pairs`, or set dm.regression.weight=0.")
        own = self._partition.assign(pairs.conditions) == self._part
        self._own_pairs = pairs.select(own).to(engine.device)
        return pairs.to(engine.device)

    def _pair_batch(self, pairs: PairSet, generator: torch.Generator) -> PairSet:
        settings = self._settings.regression
        num_own = round(settings.own_share * settings.batch_size)
        own = self._own_pairs.batch(num_own, generator, settings.with_replacement)
        rest = pairs.batch(settings.batch_size - num_own, generator, settings.with_replacement)
        return own.joined(rest)

    def turns(self, generator: torch.Generator) -> Iterator[Turn]:
        self._fakes = None
        if self.roles["student"].num_updates < self._settings.num_head_start:
            yield Turn("student", lambda: self._head_start_loss(generator))
            return
        yield Turn("student", lambda: self._student_loss(generator))
        for _ in range(self._settings.critic_turns):
            yield Turn("critic", lambda: self._critic_loss(generator))

    def _part_conditions(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise `[B, ...]` and conditions `[B]` of the student's own part."""
        size = self._settings.batch_size
        conditions = self._partition.sample(self._part, size, _draw(generator))
        noise = torch.randn(size, *self.teacher.spec.noise_shape, generator=generator, device=generator.device)
        return noise, conditions

    def _head_start_loss(self, generator: torch.Generator) -> Loss:
        if self._pairs is None:
            raise DataError("dm.regression.head_start needs pairs; set dm.regression.weight above 0.")
        pairs = self._pair_batch(self._pairs, generator)
        samples = one_step(self.student, pairs.noise, pairs.conditions, self._sigma_init)
        regression = regression_loss(samples, pairs.samples)
        return Loss(self._settings.regression.weight * regression, {"regression": regression})

    def _student_loss(self, generator: torch.Generator) -> Loss:
        settings = self._settings
        noise, conditions = self._part_conditions(generator)
        size = len(conditions)
        if self._pairs is None:
            samples = one_step(self.student, noise, conditions, self._sigma_init)
            regression = samples.new_zeros(())
        else:
            pairs = self._pair_batch(self._pairs, generator)
            # One forward for both streams: cheaper than two, and no layer mixes samples of a batch.
            samples = one_step(
                self.student,
                torch.cat([noise, pairs.noise]),
                torch.cat([conditions, pairs.conditions]),
                self._sigma_init,
            )
            regression = regression_loss(samples[size:], pairs.samples)
        fakes = samples[:size]
        self._fakes = (fakes.detach(), conditions)
        matching = dm_loss(fakes, self._matching_gradient(fakes.detach(), conditions, generator))
        value = settings.weight * matching + settings.regression.weight * regression
        return Loss(value, {"dm": matching, "regression": regression})

    @torch.no_grad()
    def _matching_gradient(self, fakes: Tensor, conditions: Tensor, generator: torch.Generator) -> Tensor:
        sigma = self._matching_law.sample(len(fakes), _draw(generator))
        noise = torch.randn(fakes.shape, generator=generator, device=fakes.device)
        noised = fakes + per_sample(sigma, fakes) * noise
        return dm_gradient(fakes, self.teacher(noised, sigma, conditions), self.critic(noised, sigma, conditions))

    def _critic_loss(self, generator: torch.Generator) -> Loss:
        if self._fakes is None:  # a second critic turn of this step: fresh samples, not the same again
            noise, conditions = self._part_conditions(generator)
            with torch.no_grad():
                fakes = one_step(self.student, noise, conditions, self._sigma_init)
        else:
            (fakes, conditions), self._fakes = self._fakes, None
        sigma = self._critic_law.sample(len(fakes), _draw(generator))
        noise = torch.randn(fakes.shape, generator=generator, device=fakes.device)
        estimate = self.critic(fakes + per_sample(sigma, fakes) * noise, sigma, conditions)
        return Loss(denoising_loss(estimate, fakes, sigma, self._sigma_data))
