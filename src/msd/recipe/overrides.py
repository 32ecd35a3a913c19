"""Dotted keys over nested values: what `--set` and the rows of a recipe have in common, and where relative paths begin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msd.errors import RecipeError
from msd.reading import fitted
from msd.recipe.words import PATH_PREFIXES, PATHS


def set_value(content: dict[str, Any], key: str, value: Any) -> None:
    """Set one dotted key in nested dictionaries. Raises RecipeError when a step on the way is a value."""
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise RecipeError(f"{key}: {parent} is a value, not a section; see `msd recipes NAME` for the keys.")
    content[last] = value


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys in place of nested mappings. Raises RecipeError when a key is there in both forms."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        pieces = flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        for key in pieces:
            if key in found:
                raise RecipeError(f"{key} is set twice; remove one of the two.")
        found |= pieces
    return found


def anchor(content: dict[str, Any], folder: Path) -> None:
    """Make relative paths absolute, as a run may be continued from elsewhere: in the sections and in the rows, which may
    write a key dotted or nested. Raises RecipeError."""
    for key, is_path in PATHS.items():
        section, name = key.split(".")
        for place, entry in ((content, key), (content.get(section), name)):
            value = place.get(entry) if isinstance(place, dict) else None
            if isinstance(place, dict) and isinstance(value, str) and is_path(value):
                kind = next((prefix for prefix in PATH_PREFIXES if value.startswith(prefix)), "")
                try:
                    if "\0" in value:
                        raise ValueError
                    path = os.path.abspath(folder / Path(value.removeprefix(kind)).expanduser())  # links stay links
                    place[entry] = kind + path
                except (OSError, RuntimeError, ValueError) as error:  # no such user, a zero byte
                    raise RecipeError(f"{key}: {fitted(repr(value), 80)} leads nowhere; give another path.") from error
    rows = content.get("rows")
    for row in rows.values() if isinstance(rows, dict) else ():
        if isinstance(row, dict):
            anchor(row, folder)
