"""What a stage is made from. The worker gathers it; a stage takes what it needs and says so when it is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from msd.conditions.partition import Partition
from msd.conditions.table import Conditions
from msd.data.pairs import Pairs
from msd.diffusion.denoiser import Denoiser
from msd.errors import DataError, WeightsError
from msd.recipe import STUDENT, NetworkSection
from msd.training.bundle import Bundle
from msd.training.engine import Engine

if TYPE_CHECKING:
    from msd.data.images import ImageSet


CRITIC = "critic"
"""The role that follows the student's outputs, wherever a stage has one."""
DISCRIMINATOR = "discriminator"
"""The role that tells real images from the student's."""


@dataclass(frozen=True)
class Materials:
    """Teacher, start, conditions, part, pairs and images of one job, and the bundle that the stage before handed on."""

    engine: Engine
    seed: int
    bundle: Bundle = field(default_factory=Bundle)
    teacher: Denoiser | None = None
    start: Denoiser | None = None
    """The student's network: a copy of the teacher unless the job starts from something else."""
    conditions: Conditions | None = None
    partition: Partition | None = None
    part: int = 0
    pairs: Pairs | None = None
    images: ImageSet | None = None
    network: NetworkSection | None = None
    """Of a network that a stage builds anew."""
    critic: Literal["teacher", "student"] = "teacher"
    """Whose network a critic begins as, where the stage before handed none on."""

    def need_teacher(self) -> Denoiser:
        """The frozen teacher, on the engine's device."""
        if self.teacher is None:
            raise WeightsError("this stage needs a teacher; set teacher.source.")
        return self.teacher.to(self.engine.device).eval().requires_grad_(False)

    def new_student(self) -> Denoiser:
        """A trainable copy of the start, with the weights that the stage before handed on, if there was one."""
        if self.start is None:
            raise WeightsError("this stage needs a student to start from; set student.start.")
        return self.bundle.restore(STUDENT, self.start.copy())

    def new_critic(self) -> Denoiser:
        """A trainable copy of the teacher (or of the student), or the critic that the stage before handed on."""
        begin = self.need_teacher().copy() if self.critic == "teacher" else self.new_student()
        return self.bundle.restore(CRITIC, begin)

    def need_pairs(self, stage: str) -> Pairs:
        if self.pairs is None:
            raise DataError(
                f"the regression loss needs pairs; make them with `msd pairs`, or set {stage}.regression.weight=0."
            )
        return self.pairs

    def need_images(self) -> ImageSet:
        if self.images is None:
            raise DataError("this stage needs real images; set data.")
        return self.images

    def need_part(self) -> tuple[Conditions, Partition, int]:
        if self.conditions is None or self.partition is None:
            raise DataError("this stage needs a partition and its conditions; set partition.")
        return self.conditions, self.partition, self.part
