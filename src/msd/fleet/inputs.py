"""The content that a recipe names, as far as a plan looks at it: teacher, starts, images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msd import checks
from msd.errors import RecipeError
from msd.fleet.starts import Start, read_start
from msd.networks.facts import read_facts
from msd.recipe import PATHS, Recipe
from msd.teachers.blueprints import check_agreement
from msd.teachers.facts import TeacherFacts, read_teacher


@dataclass(frozen=True)
class Inputs:
    """The content that a recipe names, as far as a plan looks at it."""

    teacher: TeacherFacts
    starts: Mapping[str, Start] = field(default_factory=dict)
    """By the path that the recipe gives."""
    images: str | None = None
    """Hash of the real images, where a stage sees any."""


def read_inputs(recipe: Recipe) -> Inputs:
    """Look at the teacher, the starts and the images that the recipe and its rows name. Raises WeightsError, DataError."""
    checks.instance(recipe, Recipe, "recipe", "read one with load_recipe(name)", error=RecipeError)
    teacher = read_teacher(recipe.teacher.source, recipe.teacher.guidance)
    if recipe.teacher.blueprint is not None:
        check_agreement(teacher, recipe.teacher.blueprint)
    return Inputs(teacher, read_starts(recipe), read_images(recipe, teacher))


def read_starts(recipe: Recipe) -> dict[str, Start]:
    """What students of the recipe and its rows start from, where a path says it. Raises WeightsError."""
    is_path = PATHS["student.start"]
    paths = {one.student.start for one in _recipes(recipe) if is_path(one.student.start)}
    return {path: read_start(Path(path)) for path in sorted(paths)}


def read_images(recipe: Recipe, teacher: TeacherFacts) -> str | None:
    """Hash of the recipe's images, where a stage of it or its rows sees any.

    Raises DataError, also for images that are not of the shape and the classes that the teacher makes.
    """
    if not needs_images(recipe):
        return None
    from msd.data.images import load_images
    from msd.data.streams import check_images
    from msd.networks.folder import spec_from_json

    images = load_images(recipe.data)
    spec = spec_from_json(read_facts(teacher.folder)["spec"], source=str(teacher.folder))
    check_images(images, spec, teacher.prior)
    return images.hash


def needs_images(recipe: Recipe) -> bool:
    """Whether a stage of the recipe or of its rows sees real images."""
    return any(settings.needs_images for one in _recipes(recipe) for _, settings in one.stage_settings())


def _recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe and those of its rows."""
    return [recipe, *(recipe.variant(recipe.row(name).overrides) for name in recipe.rows)]
