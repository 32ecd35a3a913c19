"""The rows of a recipe's table: each a name and what it changes of the recipe. Here are the rules that all of them obey."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from msd.errors import RecipeError
from msd.recipe.messages import nearest
from msd.recipe.overrides import flattened
from msd.recipe.words import STAGES, TEACHER

MAIN_ROW = "cohort"
"""The row of the recipe itself, as it stands."""
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"

Equal = Literal["updates-per-student", "total-updates", "total-images"]
BatchRule = Literal["whole", "share"]

ROW_KEYS = ("partition", "pairs", *STAGES, "student", "precision", "stages")
"""What a row may change: whatever decides its students. All else is the same for a whole table."""
BASELINE = "baseline"
"""The key of the named baseline (`baselines.py`) on which a row's other keys go."""
RESERVED = (BASELINE, "equal", "batch", "note")


@dataclass(frozen=True)
class Row:
    """One line of a table: the dotted overrides that `Recipe.variant` applies, and what is held equal with the cohort."""

    name: str
    overrides: dict[str, Any]
    equal: Equal = "updates-per-student"
    """`updates-per-student`: as many as a student of the cohort; `total-updates`, `total-images`: what all of them had."""
    batch: BatchRule = "whole"
    """`share`: a K-th of the recipe's batch sizes, K being the number of parts of the recipe's own partition."""
    note: str = ""
    """A few words for tables."""


def own_overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's dotted overrides, without the keys that say how it is compared."""
    return {key: value for key, value in flattened(values).items() if key not in RESERVED}


def read_row(name: str, values: Mapping[str, Any], recipe_keys: tuple[str, ...]) -> Row:
    """Check all of a row that can be checked without its recipe's values. Raises RecipeError."""
    overrides = own_overrides(values)
    for key in overrides:
        _check_key(key, recipe_keys)
    equal = _word("equal", values.get("equal", Row.equal), get_args(Equal))
    batch = _word("batch", values.get("batch", Row.batch), get_args(BatchRule))
    if equal != Row.equal:
        _check_free(overrides, "num_updates", f"equal: {equal} decides the number of updates itself", f"equal: {Row.equal}")
    if batch != Row.batch:
        _check_free(overrides, "batch_size", f"batch: {batch} decides the batch sizes itself", f"batch: {Row.batch}")
    return Row(name, overrides, cast(Equal, equal), cast(BatchRule, batch), str(values.get("note") or ""))


def check_name(name: str) -> None:
    """Raises RecipeError for a name that no row can have."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise RecipeError(f"{name!r} cannot be a row's name; use letters, digits, dots, dashes and underscores.")
    if name == MAIN_ROW or name.startswith(TEACHER):
        owner = "the recipe's own row" if name == MAIN_ROW else "the rows of the teacher"
        raise RecipeError(f"{name} is kept for {owner}; choose another name.")


def _check_key(key: str, recipe_keys: tuple[str, ...]) -> None:
    first = key.split(".")[0]
    if first in ROW_KEYS:
        return
    if first in recipe_keys:
        raise RecipeError(
            f"{key} may not differ between the rows of a table, since all are measured alike; "
            f"rows may set {', '.join(ROW_KEYS[:-1])} and {ROW_KEYS[-1]}."
        )
    raise RecipeError(f"{key} is not a row's key{nearest(first, [*ROW_KEYS, *RESERVED])}")


def _word(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise RecipeError(f"{key}: {value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    return value


def _check_free(overrides: Mapping[str, Any], ending: str, reason: str, otherwise: str) -> None:
    """Refuse an override of a stage's `ending`, which the row's rule decides."""
    for key in overrides:
        steps = key.split(".")
        if steps[0] in STAGES and steps[-1] == ending:
            raise RecipeError(f"{reason}, so {key} beside it would win nothing; remove it, or set {otherwise}.")


def check_sources(sources: Mapping[str, Mapping[str, str]], named: Collection[str]) -> None:
    """`sources` gives for each row, the recipe's own included, the rows that it waits for, each by the key that names it;
    `named` are the rows that can be added by their name alone.

    Raises RecipeError where one is unknown, or where rows wait for each other in a circle.
    """
    for name, needed in sources.items():
        for key, source in needed.items():
            if source not in sources:
                where = "" if name == MAIN_ROW else f"rows.{name}: "
                known = nearest(source, [TEACHER, *sources])
                advice = f", which is a baseline; add it with --set 'rows.{source}={{}}'." if source in named else known
                raise RecipeError(f"{where}{key}: there is no row {source!r}{advice}")
    for name in sources:
        _refuse_circle((name,), sources)


def _refuse_circle(path: tuple[str, ...], sources: Mapping[str, Mapping[str, str]]) -> None:
    for key, source in sources[path[-1]].items():
        if source in path:
            circle = " -> ".join([*path[path.index(source) :], source])
            raise RecipeError(f"{key}: {circle} waits for itself; set {key}: {TEACHER} in one of them.")
        _refuse_circle((*path, source), sources)
