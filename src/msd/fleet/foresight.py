"""What can be planned before a run's own teacher is trained: all but the hashes that come from its weights."""

from __future__ import annotations

from pathlib import Path

from msd.data.images import ImageSet
from msd.fleet.inputs import Inputs, read_starts
from msd.fleet.jobs import Job
from msd.fleet.plan import Plan, plan, pretrain_job
from msd.recipe import Recipe
from msd.stages.pretrain import foreseen_teacher
from msd.teachers.facts import TeacherFacts


def foreseen_plan(recipe: Recipe, images: ImageSet) -> tuple[Job, Plan]:
    """The training of the teacher, and the plan of what follows it, whose keys and hashes will be others.

    Where the partition depends on what the teacher learns, contiguous parts stand in for it. Raises what `plan` raises.
    """
    job = pretrain_job(recipe, images.hash)
    config, spec = foreseen_teacher(recipe.pretrain, images, recipe.network)
    teacher = TeacherFacts(
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
    if recipe.partition.method == "balanced-kmeans":
        recipe = recipe.model_copy(update={"partition": recipe.partition.model_copy(update={"method": "contiguous"})})
    return job, plan(recipe, Inputs(teacher, read_starts(recipe), images.hash))
