"""Distribution matching: makes one part's one-step student from DMD's KL gradient, a critic and paired regression."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from msd.data.pairs import PairSet
from msd.diffusion.draw import Draw
from msd.objectives.denoising import denoising_loss
from msd.objectives.dm import dm_loss
from msd.objectives.regression import regression_loss
from msd.recipe import STUDENT, DMSection
from msd.stages.matching import Batch, Matching
from msd.stages.materials import CRITIC, Materials
from msd.training.ahead import Reads
from msd.training.loop import Loss, Stage, Turn
from msd.training.passes import ALL, Pass


class DistributionMatching(Stage):
    """Roles `student` (averaged) and `critic` (teacher copy); one step is a student turn, then `critic_turns` critic turns.

    In the head start a step is the student's regression turn alone. Two key streams never mix (MSD, sec. 4.2): the part's,
    by its prior, for the DM term and the critic; and the pairs, by default all of them whatever the part.
    """

    name = "dm"
    reads: Reads[Batch | PairSet]

    def __init__(self, settings: DMSection, materials: Materials):
        engine, self._settings = materials.engine, settings
        self.num_steps, self.batch_size = settings.num_updates, settings.batch_size
        num_critic = max(1, (settings.num_updates - settings.num_head_start) * settings.critic_turns)
        student = engine.role(materials.new_student(), settings, settings.num_updates)
        critic = engine.role(materials.new_critic(), settings.critic_role, num_critic)
        self.roles = {STUDENT: student, CRITIC: critic}
        self._matching = Matching(self.name, settings, materials, student, critic)
        self.reads = Reads(self._read)

    def turns(self, draw: Draw) -> Iterator[Turn]:
        read = self.reads(draw)
        if isinstance(read, PairSet):
            yield Turn((STUDENT,), lambda: self._head_start_loss(read))
            return
        yield Turn((STUDENT,), lambda: self._student_loss(read, draw))
        for _ in range(self._settings.critic_turns):
            yield Turn((CRITIC,), lambda: self._critic_loss(draw))

    def passes(self, step: int) -> list[Pass]:
        if self._has_head_start(step) and self._matching.pairs is not None:
            return [Pass(STUDENT, self._settings.regression.batch_size, ALL)]
        turns = (self._matching.critic_passes(turn) for turn in range(self._settings.critic_turns))
        return [*self._matching.student_passes(), *chain.from_iterable(turns)]

    def forward_flops(self) -> dict[str, int]:
        return self._matching.forward_flops()

    def _has_head_start(self, step: int) -> bool:
        return step < self._settings.num_head_start

    def _read(self, draw: Draw) -> Batch | PairSet:
        """In the head start pairs alone."""
        if self._has_head_start(draw.step) and (pairs := self._matching.pairs) is not None:
            return pairs.batch(draw)
        return self._matching.read(draw)

    def _head_start_loss(self, pairs: PairSet) -> Loss:
        regression = regression_loss(self._matching.generate(pairs.noise, pairs.keys), pairs.samples)
        return Loss(self._settings.regression.weight * regression, {"regression": regression})

    def _student_loss(self, batch: Batch, draw: Draw) -> Loss:
        fakes, regression = self._matching.student_batch(batch, draw)
        matching = dm_loss(fakes.samples, self._matching.gradient(fakes, draw))
        value = self._settings.weight * matching + self._settings.regression.weight * regression
        return Loss(value, {"dm": matching, "regression": regression})

    def _critic_loss(self, draw: Draw) -> Loss:
        fakes = self._matching.fakes(draw)
        estimate, sigma = self._matching.critic_estimate(fakes, draw)
        return Loss(denoising_loss(estimate, fakes.samples, sigma, self._matching.sigma_data))
