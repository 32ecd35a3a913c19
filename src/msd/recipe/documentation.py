"""A recipe explained: every key with its value, where the value comes from, and the text that stands under its field."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from msd.recipe.recipe import Recipe


@dataclass(frozen=True)
class Explanation:
    """One key of a recipe."""

    key: str
    """Dotted, as `--set` takes it."""
    value: Any
    origin: Literal["recipe", "default"]
    documentation: str


@dataclass(frozen=True)
class SectionExplanation:
    """One section of a recipe; the recipe's own keys are in the one without a name."""

    name: str
    documentation: str
    keys: tuple[Explanation, ...]


def explain(recipe: Recipe) -> tuple[SectionExplanation, ...]:
    """Every section of a recipe, in the order of its fields."""
    return tuple(_explain(recipe, "", given=True))


def _explain(section: BaseModel, prefix: str, given: bool) -> Iterator[SectionExplanation]:
    """`given` says whether the recipe has the section at all: what a default section sets is a default."""
    keys, inner = [], []
    content = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value, is_given = getattr(section, name), given and name in section.model_fields_set
        if isinstance(value, BaseModel):
            inner.append((value, f"{prefix}{name}.", is_given))
        else:
            origin = "recipe" if is_given else "default"
            keys.append(Explanation(prefix + name, content[name], origin, _joined(field.description)))
    yield SectionExplanation(prefix.rstrip("."), _joined(inspect.getdoc(type(section))), tuple(keys))
    for value, inner_prefix, is_given in inner:
        yield from _explain(value, inner_prefix, is_given)


def _joined(text: str | None) -> str:
    """One line: how source lines break is no matter of the reader's."""
    return " ".join((text or "").split())
