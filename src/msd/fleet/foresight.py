"""What can be planned before a run's own teacher is trained: all but the hashes that come from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msd.data.images import ImageSet
from msd.fleet.inputs import Inputs, read_starts
from msd.fleet.jobs import Job
from msd.fleet.plan import Plan, plan, pretrain_job
from msd.recipe import Recipe
from msd.stages.pretrain import foreseen_teacher
from msd.teachers.facts import TeacherFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Foreseen(TeacherFacts):
    def embeddings(self) -> NDArray[Any]:
        """In place of what is not learned yet: no class like any other."""
        return np.eye(self.num_conditions, dtype=np.float32)


def foreseen_plan(recipe: Recipe, images: ImageSet) -> tuple[Job, Plan]:
    """The training of the teacher, and the plan of what follows it, whose keys and hashes will be others.

    Where a partition, of the recipe or of a row, depends on what the teacher learns, another of as many parts stands in for
    it. Raises what `plan` raises.
    """
    job = pretrain_job(recipe, images.hash)
    config, spec = foreseen_teacher(recipe.pretrain, images, recipe.network)
    teacher = _Foreseen(
        recipe.teacher.source,
        Path(),
        job.task.hash,
        images.num_conditions,
        images.prior,
        images.licence,
        spec.noise_shape,
        spec.sigma_min,
        spec.sigma_max,
        images.classes,
        config,
    )
    return job, plan(recipe, Inputs(teacher, read_starts(recipe), images.hash))
