"""From a file and `--set` to a Recipe: finding it, reading it, changing it, checking it."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from msd import checks
from msd.errors import RecipeError
from msd.reading import Broken, Kind, clause, fitted
from msd.reading_yaml import parse_yaml, read_yaml
from msd.recipe.baselines import BASELINES, DEFAULT_ROWS, normal_rows
from msd.recipe.messages import nearest
from msd.recipe.overrides import anchor, flattened, set_value
from msd.recipe.recipe import NOT_IDENTITY, Recipe, build
from msd.recipe.rows import BASELINE

PACKAGED = Path(__file__).parent.parent / "recipes"


_KIND = Kind("a recipe", "mend it", RecipeError)


def packaged_recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PACKAGED.glob("*.yaml"))}


def load_recipe(name: str | Path, overrides: list[str] | None = None, **top_level: Any) -> Recipe:
    """Read a packaged recipe by name or any by path, apply dotted `overrides` (["dm.learning_rate=3e-4"]), validate.

    `top_level` replaces top-level fields (seed, device) unless None. Raises RecipeError.
    """
    path = _find(str(checks.path(name, "a recipe's name", error=RecipeError)))
    content = read_yaml(path, _KIND)
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is not a recipe; start from a packaged one (`msd recipes` lists them).")
    anchor(content, Path.cwd() if path.parent == PACKAGED else path.parent)  # what a package names lies with its user
    _apply_all(content, overrides, top_level)
    content.setdefault("name", path.stem)
    try:
        return build(content)
    except RecipeError as error:
        if overrides or path.parent == PACKAGED:
            raise
        raise RecipeError(f"{path}: {error}") from error  # nothing but the file can be wrong


def revised(
    content: dict[str, Any], overrides: list[str] | None, *, allowed: Collection[str] = (), **top_level: Any
) -> Recipe:
    """A stored recipe with dotted `overrides` and top-level values applied. Raises RecipeError.

    `allowed` names the sections that overrides may change where the recipe is only measured by (none: all may).
    """
    content = copy.deepcopy(checks.instance(content, dict, "a stored recipe", "give its plain values", error=RecipeError))
    if allowed:
        for override in _listed(overrides):
            _check_allowed(_parse(override)[0], allowed)
    _apply_all(content, overrides, top_level)
    return build(content, lone=bool(allowed))


def validate(content: dict[str, Any]) -> Recipe:
    """Build a Recipe from plain values. Raises RecipeError with one sentence for the first thing that is wrong."""
    return build(content)


def restored(content: dict[str, Any], kind: Kind, *, source: str) -> Recipe:
    """A Recipe that was valid when it was written into the file `source`. Raises the kind's error."""
    try:
        return build(content)
    except RecipeError as error:
        raise kind.error(f"{source} is not {kind.what} ({clause(error)}); {kind.remedy}.") from error


def _find(name: str) -> Path:
    packaged = packaged_recipes()
    if name in packaged:
        return packaged[name]
    path = Path(name)
    if os.path.lexists(path):  # what is no file is told so where it is read
        return path
    hint = nearest(name, list(packaged))
    raise RecipeError(f"there is no recipe {name!r}, neither packaged nor as a file{hint}; `msd recipes` lists them.")


def _apply_all(content: dict[str, Any], overrides: list[str] | None, top_level: dict[str, Any]) -> None:
    for override in _listed(overrides):
        _apply(content, override)
    anchor(content, Path.cwd())
    content.update({key: value for key, value in top_level.items() if value is not None})


def _listed(overrides: list[str] | None) -> list[str]:
    """Overrides as they must be given: a list, since a single text would be taken for a list of letters."""
    found = [] if overrides is None else checks.items(overrides, "overrides", 'texts, e.g. ["seed=3"]', error=RecipeError)
    for override in found:
        checks.instance(override, str, "an override", 'write e.g. "dm.learning_rate=3e-4"', error=RecipeError)
    return found


def _apply(content: dict[str, Any], override: str) -> None:
    key, value = _parse(override)
    first, *rest = key.split(".", 2)
    if first == "rows" and rest:
        _apply_to_row(content, rest[0], ".".join(rest[1:]), value)
        return
    try:
        set_value(content, key, value)
    except RecipeError as error:
        raise RecipeError(f"--set {fitted(repr(override), 100)}: {str(error).removeprefix(f'{key}: ')}") from error


def _apply_to_row(content: dict[str, Any], name: str, key: str, value: Any) -> None:
    """Change or add one row; the others stay, also those that are there by default. A row's own keys are dotted.

    A key of a baseline that is no row yet goes on that baseline.
    """
    rows = content["rows"] = normal_rows(content.get("rows", DEFAULT_ROWS))
    if not key:
        rows[name] = value
        return
    row = rows.get(name, {BASELINE: name} if name in BASELINES else {})
    if not isinstance(row, dict):
        raise RecipeError(f"rows.{name} is not a mapping of what the row changes; see `msd recipes NAME`.")
    rows[name] = flattened(row) | flattened({key: value})


def _parse(override: str) -> tuple[str, Any]:
    """The key and, read as YAML, the value of KEY=VALUE. Raises RecipeError."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {fitted(repr(override), 100)} is not KEY=VALUE; write e.g. --set dm.learning_rate=3e-4")
    try:
        return key, parse_yaml(text)
    except Broken as error:
        raise RecipeError(
            f"--set {fitted(repr(override), 100)}: the value is not YAML ({error}); "
            "quote it, or write a plain number or word."
        ) from error


def _check_allowed(key: str, allowed: Collection[str]) -> None:
    first = key.split(".")[0]
    if first in allowed or first not in Recipe.model_fields:  # what is unknown altogether gets its own sentence later
        return
    instead = ", ".join(f"{name}.*" for name in allowed)
    if first == "device":
        raise RecipeError("device has its own option here; write --device.")
    if first in NOT_IDENTITY:
        raise RecipeError(f"{key} changes nothing that is measured; set {instead} here.")
    raise RecipeError(
        f"{key} decides what a cohort is, which eval only measures; set {instead} here, or distill another cohort."
    )
