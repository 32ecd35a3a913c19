"""What a plan refuses of networks before any training, as a worker would find it only when pairs and stages are done.

No torch here, but for a stage with a discriminator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msd.errors import WeightsError
from msd.fleet.inputs import Inputs
from msd.networks.anatomy import read_anatomy
from msd.networks.facts import read_config
from msd.networks.places import check_place, place_shapes
from msd.networks.shrink import smaller_config
from msd.recipe import PATHS, ROW_PREFIX, STUDENT, TEACHER, ADMSection, Recipe

RecipeOf = Callable[[str], Recipe]
"""The recipe of a row, by its name."""
Config = Mapping[str, Any]


def check_networks(recipe: Recipe, inputs: Inputs, recipe_of: RecipeOf) -> None:
    """Raises RecipeError for a size of student that there is not, a tap that there is not, or a head larger than the
    critic. Nothing is asked of a teacher whose network is not known yet."""
    config = student_config(recipe, inputs, recipe_of)
    if config is None or inputs.teacher.config is None:
        return
    critic = config if recipe.student.critic == STUDENT else inputs.teacher.config
    for _, settings in recipe.stage_settings():
        if isinstance(settings, ADMSection):
            _check_discriminator(settings, critic, inputs)


def student_config(recipe: Recipe, inputs: Inputs, recipe_of: RecipeOf) -> Config | None:
    """What the recipe's students are built from; None where the teacher's network is not known yet.

    Raises RecipeError, naming the sizes that there are, for a reduction that none comes near.
    """
    start, reduce = recipe.student.start, recipe.student.reduce
    if start.startswith(ROW_PREFIX):
        config = student_config(recipe_of(start.removeprefix(ROW_PREFIX)), inputs, recipe_of)
    elif PATHS["student.start"](start):
        config = read_config(inputs.starts[start].student)
    else:
        config = inputs.teacher.config
    return config if config is None or not reduce else smaller_config(config, reduce).config


def _check_discriminator(settings: ADMSection, critic: Config, inputs: Inputs) -> None:
    from msd.networks.heads import check_head

    tapped = inputs.teacher.config if settings.features == TEACHER else critic
    try:
        anatomy, num_critic = read_anatomy(tapped or critic), read_anatomy(critic).num_parameters()
    except WeightsError:
        return  # of a kind that can be trained but not foreseen: its worker looks at the network itself
    height, width = inputs.teacher.noise_shape[1:]
    shapes = place_shapes(anatomy, height, width)
    check_place(settings.tap, shapes)
    check_head(shapes[settings.tap], inputs.teacher.num_conditions, settings.head, num_critic)
