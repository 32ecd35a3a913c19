"""Named baselines: rows that a recipe asks for by name, each a function of the recipe's own settings.

Structure is the paper's (stages, losses, their weights, turns, noise levels); what belongs to a scale is the recipe's (the
height of learning rates, their schedule, lengths, batches, pairs, solver, `student.sigma_init`). docs/baselines.md has both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msd.checks import shown
from msd.errors import RecipeError
from msd.recipe.messages import nearest
from msd.recipe.overrides import flattened
from msd.recipe.rows import BASELINE, Equal, Row, check_name
from msd.recipe.words import RANDOM, ROW_PREFIX, TEACHER

if TYPE_CHECKING:
    from msd.recipe.recipe import Recipe

Overrides = dict[str, Any]

SINGLE, FULL_SINGLE = "single", "full-single"

DMD, DMD2, MSD = "DMD (arXiv 2311.18828)", "DMD2 (arXiv 2405.14867) and its code", "MSD (arXiv 2410.23274)"
NUM_LEVELS, LOWEST, HIGHEST, RHO = 1000, 0.002, 80.0, 7.0
"""DMD's grid of noise levels, that of Karras et al. (2022)."""


@dataclass(frozen=True)
class Baseline:
    """A row that has a name: what it is, in a few words for tables, whose settings it has, and what it changes."""

    note: str
    source: str
    overrides: Callable[[Recipe], Overrides]
    """The dotted overrides, from the recipe with the row's own keys on it. Raises RecipeError where it lacks what is
    needed."""
    equal: Equal = Row.equal


def _single(recipe: Recipe) -> Overrides:
    return {"partition.num_parts": 1}


def _copy_of_teacher() -> Overrides:
    """A student of the teacher's size and weights, its critic and pairs the teacher's too."""
    return {"student.start": TEACHER, "student.reduce": None, "student.critic": TEACHER, "pairs.source": TEACHER}


def _matching(recipe: Recipe, stage: str) -> Overrides:
    """What DMD and DMD2 have in common of a stage: one rate for all that learns, and the noise levels."""
    rate = getattr(recipe, stage).learning_rate
    settings = {
        "weight": 1.0,
        "critic_learning_rate": rate,
        "adam_beta1": 0.9,
        "clip_norm": 10.0,
        "sigma_low": _level(round(0.02 * NUM_LEVELS)),
        "sigma_high": _level(round(0.98 * NUM_LEVELS)),
    }
    return _within(stage, settings)


def _level(index: int) -> float:
    """Noise level `index` of DMD's 1000, the lowest being 0. Between two of them the Karras law is theirs but for steps."""
    low, high = LOWEST ** (1 / RHO), HIGHEST ** (1 / RHO)
    return (low + index / (NUM_LEVELS - 1) * (high - low)) ** RHO


def _paper_dm(recipe: Recipe) -> Overrides:
    """MSD's first stage on the recipe's partition. DMD's weight of regression is of LPIPS, and here of the squared error."""
    regression = {"regression.weight": 0.25, "regression.own_share": 0.0, "regression.head_start": 0.0}
    own = _within("dm", {"critic_turns": 1, **regression})
    return _goes_through(recipe, "dm") | _copy_of_teacher() | _matching(recipe, "dm") | own


def _without_pairs(recipe: Recipe, stage: str) -> Overrides:
    """DMD2's two time scales in place of regression."""
    settings = {"critic_turns": 5, "ema_decay": None, "regression.weight": 0.0}
    return _matching(recipe, stage) | _within(stage, settings)


def _adversarial(recipe: Recipe) -> Overrides:
    """DMD2's GAN, with the head that it has at 64x64."""
    settings = {
        "discriminator_learning_rate": recipe.adm.learning_rate,
        "adversarial_weight": 3e-3,
        "discriminator_weight": 1e-2,
        "head": "strided",
        "tap": "bottleneck",
        "features": "critic",
        "trains_critic": True,
        "critic_weighting": "edm",
        "discriminator_sigma_low": LOWEST,
        "discriminator_sigma_high": HIGHEST,
        "discriminator_warmup": 0,
        "r1_weight": 0.0,
        "trained_layers": "all",
    }
    return _without_pairs(recipe, "adm") | _within("adm", settings)


def _dmd(recipe: Recipe) -> Overrides:
    return _single(recipe) | _paper_dm(recipe)


def _dmd2(recipe: Recipe) -> Overrides:
    dm = _without_pairs(recipe, "dm") | {"dm.regression.head_start": 0.0}
    stages = _goes_through(recipe, "dm", "adm")
    return _single(recipe) | stages | _copy_of_teacher() | dm | _adversarial(recipe)


def _paper_adm(recipe: Recipe) -> Overrides:
    return _paper_dm(recipe) | _goes_through(recipe, "dm", "adm") | _adversarial(recipe)


def _full_single(recipe: Recipe) -> Overrides:
    return _single(recipe) | _copy_of_teacher() | _without_tsm(recipe)


def _post_distilled(recipe: Recipe) -> Overrides:
    """Regression alone, which is the DM stage's head start from its first update to its last: no critic is trained."""
    dm = {
        "weight": 0.0,
        "num_updates": sum(settings.num_updates for _, settings in recipe.stage_settings()),
        "regression.weight": 1.0,
        "regression.head_start": 1.0,
    }
    own = {"pairs.source": FULL_SINGLE, "student.critic": TEACHER}
    return _goes_through(recipe, "dm") | own | _within("dm", dm)


def _pruned(recipe: Recipe) -> Overrides:
    start = {"student.start": f"{ROW_PREFIX}{FULL_SINGLE}", "student.critic": TEACHER}
    return _single(recipe) | start | _smaller(recipe) | _without_tsm(recipe)


def _small_random(recipe: Recipe) -> Overrides:
    return {"student.start": RANDOM, "student.critic": TEACHER} | _smaller(recipe) | _without_tsm(recipe)


def _within(stage: str, settings: Mapping[str, Any]) -> Overrides:
    return {f"{stage}.{key}": value for key, value in settings.items()}


def _without_tsm(recipe: Recipe) -> Overrides:
    """Never nothing, since score matching is never alone."""
    return {"stages": [stage for stage in recipe.stages if stage != "tsm"]}


def _goes_through(recipe: Recipe, *stages: str) -> Overrides:
    """The baseline's stages. Lengths, rates and batches are the recipe's, so it must have each of them."""
    for stage in stages:
        if stage not in recipe.stages:
            raise RecipeError(
                f"its baseline goes through {' and '.join(stages)} with the recipe's own lengths, rates and batches, and "
                f"stages [{', '.join(recipe.stages)}] has no {stage}; add {stage} to the recipe's stages, or to this row's."
            )
    return {"stages": list(stages)}


def _smaller(recipe: Recipe) -> Overrides:
    """The recipe's reduction. Without one the row would be what its name denies."""
    if not recipe.student.reduce:
        raise RecipeError(
            "its baseline's students are smaller than their teacher, and student.reduce leaves nothing out; set e.g. "
            "student.reduce=0.42 (`msd shrink RECIPE` shows the sizes there are), or leave the row out."
        )
    return {"student.reduce": recipe.student.reduce}


BASELINES: dict[str, Baseline] = {
    SINGLE: Baseline("one student", "the recipe's own", _single),
    "single-equal-total": Baseline("one student", "the recipe's own", _single, "total-updates"),
    FULL_SINGLE: Baseline("one student of the teacher's size", "the recipe's own", _full_single, "total-updates"),
    "dmd": Baseline("one student, as DMD does it", DMD, _dmd),
    "dmd2": Baseline("one student, as DMD2 does it", DMD2, _dmd2),
    "paper-dm": Baseline("students of the teacher's size, as MSD does it: DM", f"{MSD}; DMD", _paper_dm),
    "paper-adm": Baseline("students of the teacher's size, as MSD does it: DM, ADM", f"{MSD}; DMD, DMD2", _paper_adm),
    "post-distilled": Baseline(
        f"students regressed on {FULL_SINGLE}'s samples, for all stages' updates", MSD, _post_distilled
    ),
    "pruned": Baseline(f"{FULL_SINGLE} made smaller, then trained on", "asked for by MSD's reviewers", _pruned),
    "small-random": Baseline("students that start from nobody's weights", MSD, _small_random),
}

DEFAULT_ROWS: dict[str, Overrides] = {name: {BASELINE: name} for name in (SINGLE, "single-equal-total")}


def baseline_named(name: Any) -> Baseline:
    """Raises RecipeError with the nearest name."""
    found = BASELINES.get(name) if isinstance(name, str) else None
    if found is None:
        raise RecipeError(f"there is no baseline {shown(name)}{nearest(str(name), list(BASELINES))}")
    return found


def normal_rows(rows: Any) -> Any:
    """A table's rows in the one form that is kept: each name with its dotted keys.

    A list names baselines; a row without keys is the baseline of its own name. Reads no value yet, and leaves what is no
    row at all to whoever does. Raises RecipeError.
    """
    if isinstance(rows, Mapping):
        return {name: _normal_row(name, values) for name, values in rows.items()}
    if not isinstance(rows, list | tuple):
        raise RecipeError(
            f"rows: {shown(rows)} is neither a list of baselines, as [{SINGLE}, dmd], nor a mapping of each row to what it "
            "changes; write one of the two."
        )
    for name in rows:
        if not isinstance(name, str):
            raise RecipeError(
                f"rows: {shown(name)} is no baseline's name, which is all that a list of rows holds; "
                "write a mapping of each row to what it changes."
            )
        if list(rows).count(name) > 1:
            raise RecipeError(f"rows: {name} is there twice; leave one of them out.")
    return normal_rows(dict.fromkeys(rows))


def _normal_row(name: Any, values: Any) -> Any:
    if not isinstance(name, str) or not isinstance(values, Mapping | None):
        return values
    try:
        flat = flattened(values or {})
        check_name(name)
        if not flat and name not in BASELINES:
            raise RecipeError(
                f"a row without keys is the baseline of its own name, and there is none{nearest(name, list(BASELINES))}"
            )
        flat = flat or {BASELINE: name}
        if BASELINE in flat:
            baseline_named(flat[BASELINE])
    except RecipeError as error:
        raise RecipeError(f"rows.{name}: {error}") from error
    return flat
