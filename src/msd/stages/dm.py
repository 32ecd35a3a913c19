"""Distribution matching: makes one part's one-step student from DMD's KL gradient, a critic and paired regression."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from msd.data.pairs import PairStream
from msd.diffusion.draw import Draw
from msd.objectives.dm import dm_loss
from msd.objectives.regression import regression_loss
from msd.recipe import STUDENT, DMSection
from msd.stages.matching import Matching
from msd.stages.materials import CRITIC, Materials
from msd.training.loop import Loss, Stage, Turn


class DistributionMatching(Stage):
    """Roles `student` (averaged) and `critic` (teacher copy); one step is a student turn, then `critic_turns` critic turns.

    In the head start a step is the student's regression turn alone. Two key streams never mix (MSD, sec. 4.2): the part's,
    by its prior, for the DM term and the critic; and the pairs, by default all of them whatever the part.
    """

    name = "dm"

    def __init__(self, settings: DMSection, materials: Materials):
        engine, self._settings = materials.engine, settings
        self.num_steps, self.batch_size = settings.num_updates, settings.batch_size
        num_critic = max(1, (settings.num_updates - settings.num_head_start) * settings.critic_turns)
        student = engine.role(materials.new_student(), settings, settings.num_updates)
        critic = engine.role(materials.new_critic(), settings.critic_role, num_critic)
        self.roles = {STUDENT: student, CRITIC: critic}
        self._matching = Matching(settings, materials, student, critic)
        self._pairs = self._pair_stream(materials)

    def _pair_stream(self, materials: Materials) -> PairStream | None:
        regression = self._settings.regression
        if regression.weight == 0:
            return None
        materials.engine.check_batch(regression.batch_size)
        pairs, (_, partition, part) = materials.need_pairs(), materials.need_part()
        return PairStream(
            pairs.to(materials.engine.device),
            partition.assign(pairs.keys) == part,
            batch_size=regression.batch_size,
            own_share=regression.own_share,
            replacement=regression.with_replacement,
        )

    def turns(self, draw: Draw) -> Iterator[Turn]:
        if draw.step < self._settings.num_head_start and self._pairs is not None:
            pairs = self._pairs
            yield Turn((STUDENT,), lambda: self._head_start_loss(pairs, draw))
            return
        yield Turn((STUDENT,), lambda: self._student_loss(draw))
        for _ in range(self._settings.critic_turns):
            yield Turn((CRITIC,), lambda: self._matching.critic_loss(draw))

    def _head_start_loss(self, stream: PairStream, draw: Draw) -> Loss:
        pairs = stream.batch(draw)
        regression = regression_loss(self._matching.generate(pairs.noise, pairs.keys), pairs.samples)
        return Loss(self._settings.regression.weight * regression, {"regression": regression})

    def _student_loss(self, draw: Draw) -> Loss:
        noise, keys = self._matching.part_batch(draw)
        size = len(keys)
        if self._pairs is None:
            samples = self._matching.generate(noise, keys)
            regression: Tensor = samples.new_zeros(())
        else:
            pairs = self._pairs.batch(draw)
            # One forward for both streams: cheaper than two, and no layer mixes samples of a batch.
            samples = self._matching.generate(torch.cat([noise, pairs.noise]), torch.cat([keys, pairs.keys]))
            regression = regression_loss(samples[size:], pairs.samples)
        fakes = samples[:size]
        matching = dm_loss(fakes, self._matching.gradient(fakes, keys, draw))
        value = self._settings.weight * matching + self._settings.regression.weight * regression
        return Loss(value, {"dm": matching, "regression": regression})
