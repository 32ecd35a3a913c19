"""What can be planned before a run's own teacher is trained: all but the hashes that come from its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msd.data.images import ImageSet, load_images
from msd.data.streams import check_images
from msd.diffusion.denoiser import DenoiserSpec
from msd.fleet.inputs import Inputs, needs_images, read_inputs, read_starts
from msd.fleet.jobs import Job
from msd.fleet.plan import Plan, plan, pretrain_job
from msd.networks.facts import read_facts
from msd.networks.folder import spec_from_json
from msd.recipe import PRETRAIN, Recipe
from msd.stages.pretrain import foreseen_teacher
from msd.teachers.blueprints import blueprint_teacher, blueprints, check_agreement, read_blueprint
from msd.teachers.facts import TeacherFacts, read_teacher

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Outlook:
    """A plan, and how its teacher's network is used."""

    inputs: Inputs
    plan: Plan
    spec: DenoiserSpec
    first: tuple[Job, ...] = ()
    """The training of the run's own teacher."""
    images: ImageSet | None = None
    """That it is trained from."""
    notes: tuple[str, ...] = ()
    """What was not there to look at, in sentences."""

    @property
    def is_certain(self) -> bool:
        """Whether the keys and hashes of the plan's jobs are those that they will have."""
        return not self.first and not self.notes


def look_ahead(recipe: Recipe) -> Outlook:
    """The plan of a recipe whose teacher may be missing: trained by the run itself, or one with a blueprint.

    Raises what `plan` raises.
    """
    source, name = recipe.teacher.source, recipe.teacher.blueprint
    if source == PRETRAIN:
        images = load_images(recipe.data)
        job, planned = foreseen_plan(recipe, images)
        _, spec = foreseen_teacher(recipe.pretrain, images, recipe.network)
        teacher = _foreseen(recipe, images, job)
        return Outlook(Inputs(teacher, read_starts(recipe)), planned, spec, (job,), images)
    if name is not None:
        return _at_scale(recipe, name)
    inputs = read_inputs(recipe)
    return Outlook(inputs, plan(recipe, inputs), _spec_of(inputs.teacher))


def _at_scale(recipe: Recipe, name: str) -> Outlook:
    """Of a recipe with a blueprint: what is not there yet, teacher or images, is noted and not missed."""
    source, notes = recipe.teacher.source, []
    if os.path.lexists(source):
        teacher = read_teacher(source, recipe.teacher.guidance)
        check_agreement(teacher, name)
        spec = _spec_of(teacher)
    else:
        teacher = blueprint_teacher(source, name, recipe.teacher.guidance)
        spec = spec_from_json(read_blueprint(name).spec, source=str(blueprints()[name]))
        notes.append(f"{Path(source).name} is not there: the teacher is what blueprint {name} says")
    images = None
    if needs_images(recipe):
        if recipe.data.is_packaged or os.path.lexists(recipe.data.source):
            found = load_images(recipe.data)
            check_images(found, spec, teacher.prior)
            images = found.hash
        else:
            notes.append(f"the real images {Path(recipe.data.source).name} are not there: nobody looked whether they fit")
    inputs = Inputs(teacher, read_starts(recipe), images)
    return Outlook(inputs, plan(recipe, inputs), spec, notes=tuple(notes))


def _spec_of(teacher: TeacherFacts) -> DenoiserSpec:
    return spec_from_json(read_facts(teacher.folder)["spec"], source=str(teacher.folder))


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
    return job, plan(recipe, Inputs(_foreseen(recipe, images, job), read_starts(recipe), images.hash))


def _foreseen(recipe: Recipe, images: ImageSet, job: Job) -> TeacherFacts:
    config, spec = foreseen_teacher(recipe.pretrain, images, recipe.network)
    return _Foreseen(
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
