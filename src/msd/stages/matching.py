"""What DM and ADM share: the student's own samples, the matching gradient on them, the pairs, and the critic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msd.data.pairs import PairSet, PairStream
from msd.diffusion.denoiser import Denoiser, per_sample
from msd.diffusion.draw import Draw, Slice
from msd.diffusion.noise import KarrasLaw, LogNormalLaw, NoiseLaw
from msd.diffusion.solvers import one_step
from msd.networks.cost import forward_flops
from msd.objectives.dm import dm_gradient
from msd.objectives.regression import regression_loss
from msd.recipe import STUDENT, TEACHER, MatchingSection
from msd.stages.materials import CRITIC, Materials
from msd.training.passes import ALL, Pass
from msd.training.roles import Role


@dataclass(frozen=True)
class Batch:
    """What a student turn begins with: `noise` `[B, ...]` and `keys` `[B]` of the student's own part, and pairs."""

    noise: Tensor
    keys: Tensor
    pairs: PairSet | None = None


@dataclass(frozen=True)
class Fakes:
    """A student's samples `[B, ...]` of the classes `keys` `[B]`."""

    samples: Tensor
    keys: Tensor

    def detach(self) -> Fakes:
        return Fakes(self.samples.detach(), self.keys)


@dataclass(frozen=True)
class Noised:
    """Samples `[B, ...]` with noise of the levels `sigma` `[B]` added, and the classes `keys` `[B]` they are of."""

    samples: Tensor
    sigma: Tensor
    keys: Tensor


class Matching:
    """Student against critic on one part's keys, drawn by the part's prior. The teacher is frozen and has no role.

    `stage` names whose settings they are, for sentences about them.
    """

    def __init__(
        self,
        stage: str,
        settings: MatchingSection,
        materials: Materials,
        student: Role[Denoiser],
        critic: Role[Denoiser],
    ):
        self.student, self.critic, self.teacher = student, critic, materials.need_teacher()
        self.conditions, self._partition, self._part = materials.need_part()
        spec = self.student.module.spec
        if spec.sigma_init is None:
            raise ValueError("a student has an input noise level")
        self._sigma_init = spec.sigma_init
        self._noise_shape, self.sigma_data = self.teacher.spec.noise_shape, self.teacher.spec.sigma_data
        self._batch_size, self._num_pairs = settings.batch_size, settings.regression.batch_size
        self._matching_law = KarrasLaw(settings.sigma_low, settings.sigma_high)
        self._critic_law = LogNormalLaw(settings.critic_log_sigma_mean, settings.critic_log_sigma_deviation)
        self.pairs = self._pair_stream(stage, settings, materials)
        self._made: dict[Slice, Fakes] = {}

    def _pair_stream(self, stage: str, settings: MatchingSection, materials: Materials) -> PairStream | None:
        regression = settings.regression
        if regression.weight == 0:
            return None
        materials.engine.check_batch(regression.batch_size)
        pairs = materials.need_pairs(stage)
        return PairStream(
            pairs,
            self._partition.assign(pairs.keys) == self._part,
            batch_size=regression.batch_size,
            own_share=regression.own_share,
            replacement=regression.with_replacement,
            section=f"{stage}.regression",
        )

    def read(self, draw: Draw, *, paired: bool = True) -> Batch:
        """What the student begins with; without pairs where there are none, or they are not wanted."""
        keys = self._partition.sample(self._part, self._batch_size, draw)
        noise = draw.normal(self._batch_size, *self._noise_shape)
        return Batch(noise, keys, self.pairs.batch(draw) if paired and self.pairs is not None else None)

    def generate(self, noise: Tensor, keys: Tensor) -> Tensor:
        """The student's samples `[B, ...]`, in one step."""
        return one_step(self.student, noise, self.conditions[keys], self._sigma_init)

    def noised(self, samples: Tensor, keys: Tensor, law: NoiseLaw, draw: Draw) -> Noised:
        """The samples with noise of levels that `law` draws."""
        sigma = law.sample(self._batch_size, draw)
        noise = draw.normal(self._batch_size, *self._noise_shape)
        return Noised(samples + per_sample(sigma, samples) * noise, sigma, keys)

    def student_batch(self, batch: Batch, draw: Draw) -> tuple[Fakes, Tensor]:
        """The student's samples of its own part, kept for the critic's coming turn, and its loss on the pairs (0 without).

        Two key streams never mix (MSD, sec. 4.2): the part's, by its prior, and the pairs, by default all of them.
        """
        noise, keys, pairs = batch.noise, batch.keys, batch.pairs
        size = len(keys)
        if pairs is None:
            samples = self.generate(noise, keys)
            regression = samples.new_zeros(())
        else:
            # One forward for both streams: cheaper than two, and no layer mixes samples of a batch.
            samples = self.generate(torch.cat([noise, pairs.noise]), torch.cat([keys, pairs.keys]))
            regression = regression_loss(samples[size:], pairs.samples)
        fakes = Fakes(samples[:size], keys)
        self._made[draw.slice] = fakes.detach()
        return fakes, regression

    @torch.no_grad()
    def gradient(self, fakes: Fakes, draw: Draw) -> Tensor:
        """Where the samples `[B, ...]` should move."""
        samples = fakes.samples.detach()
        noised = self.noised(samples, fakes.keys, self._matching_law, draw)
        condition = self.conditions[fakes.keys]
        teacher = self.teacher(noised.samples, noised.sigma, condition)
        return dm_gradient(samples, teacher, self.critic(noised.samples, noised.sigma, condition))

    @torch.no_grad()
    def fakes(self, draw: Draw, batch: Batch | None = None) -> Fakes:
        """The student turn's own samples, detached; asked again in the same step, fresh ones. Those of `batch`, where no
        student turn has been."""
        if (made := self._made.pop(draw.slice, None)) is not None:
            return made
        batch = batch or self.read(draw, paired=False)
        return Fakes(self.generate(batch.noise, batch.keys), batch.keys)

    def critic_estimate(self, fakes: Fakes, draw: Draw) -> tuple[Tensor, Tensor]:
        """The critic's estimate `[B, ...]` of the noised samples, and their noise levels `[B]`."""
        noised = self.noised(fakes.samples, fakes.keys, self._critic_law, draw)
        return self.critic(noised.samples, noised.sigma, self.conditions[fakes.keys]), noised.sigma

    def student_passes(self, backward: int = ALL) -> list[Pass]:
        """Of `student_batch` and `gradient`, and of the way `backward` through the student."""
        num = self._batch_size + (0 if self.pairs is None else self._num_pairs)
        return [Pass(STUDENT, num, backward), Pass(TEACHER, self._batch_size), Pass(CRITIC, self._batch_size)]

    def critic_passes(self, turn: int) -> list[Pass]:
        """Of `fakes` and `critic_estimate`, with the way back, in the `turn`-th critic turn of a step (the first is 0)."""
        again = [Pass(STUDENT, self._batch_size)] if turn > 0 else []
        return [*again, Pass(CRITIC, self._batch_size, ALL)]

    def forward_flops(self) -> dict[str, int]:
        """Of the networks that these passes name."""
        networks = {STUDENT: self.student.module, CRITIC: self.critic.module, TEACHER: self.teacher}
        return {name: forward_flops(network) for name, network in networks.items()}
