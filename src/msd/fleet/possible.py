"""What a plan refuses of networks before any training, as a worker would find it only when pairs and stages are done.

No torch here, but for a stage with a discriminator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msd.errors import WeightsError
from msd.fleet.inputs import Inputs
from msd.networks.anatomies import ANATOMIES
from msd.networks.facts import read_config
from msd.networks.places import check_place, place_shapes
from msd.networks.shrink import smaller_config
from msd.recipe import PATHS, ROW_PREFIX, STUDENT, TEACHER, ADMSection, Recipe

RecipeOf = Callable[[str], Recipe]
"""The recipe of a row, by its name."""


class Architecture(NamedTuple):
    """A kind of network, as its folder calls it, and what it is built from."""

    kind: str
    config: Mapping[str, Any]


def check_networks(recipe: Recipe, inputs: Inputs, recipe_of: RecipeOf) -> None:
    """Raises RecipeError for a size of student that there is not, a tap that there is not, or a head larger than the
    critic. Nothing is asked of a teacher whose network is not known yet."""
    student, teacher = student_network(recipe, inputs, recipe_of), _of_teacher(inputs)
    if student is None or teacher is None:
        return
    critic = student if recipe.student.critic == STUDENT else teacher
    for _, settings in recipe.stage_settings():
        if isinstance(settings, ADMSection):
            _check_discriminator(settings, teacher if settings.features == TEACHER else critic, critic, inputs)


def student_network(recipe: Recipe, inputs: Inputs, recipe_of: RecipeOf) -> Architecture | None:
    """What the recipe's students are built from; None where the teacher's network is not known yet.

    Raises RecipeError, naming the sizes that there are, for a reduction that none comes near.
    """
    start, reduce = recipe.student.start, recipe.student.reduce
    if start.startswith(ROW_PREFIX):
        found = student_network(recipe_of(start.removeprefix(ROW_PREFIX)), inputs, recipe_of)
    elif PATHS["student.start"](start):
        saved = inputs.starts[start]
        found = Architecture(saved.facts["network"], read_config(saved.student))
    else:
        found = _of_teacher(inputs)
    if found is None or not reduce:
        return found
    return Architecture(found.kind, smaller_config(found.config, reduce, found.kind).config)


def _of_teacher(inputs: Inputs) -> Architecture | None:
    teacher = inputs.teacher
    return None if teacher.config is None else Architecture(teacher.kind, teacher.config)


def _check_discriminator(settings: ADMSection, tapped: Architecture, critic: Architecture, inputs: Inputs) -> None:
    from msd.networks.heads import check_head

    try:
        network = ANATOMIES[tapped.kind](tapped.config)
        num_critic = ANATOMIES[critic.kind](critic.config).num_parameters()
    except (KeyError, WeightsError):
        return  # of a kind that can be trained but not foreseen: its worker looks at the network itself
    height, width = inputs.teacher.noise_shape[1:]
    shapes = place_shapes(network, height, width)
    check_place(settings.tap, shapes)
    check_head(shapes[settings.tap], inputs.teacher.num_conditions, settings.head, num_critic)
