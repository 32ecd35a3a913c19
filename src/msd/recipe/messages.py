"""What a reader is told when a recipe is wrong: one sentence with the key, the rule and the nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Union

from pydantic import BaseModel, ValidationError

from msd.checks import shown
from msd.reading import fitted


def nearest(name: str, candidates: Sequence[str]) -> str:
    """The end of a sentence about an unknown name: the one that was probably meant, or all there are."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(candidates)})" if candidates else ""


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong with the values given to `model`."""
    first = error.errors()[0]
    where = fitted(".".join(str(step) for step in first["loc"]), 120)
    if first["type"] == "extra_forbidden":
        return f"{where} is not a recipe key{_other_key(first['loc'], model)}"
    message = first["msg"].removeprefix("Value error, ")
    place = f"{where}: " if where else ""
    given = f" (got {shown(first['input'])})" if first["type"] != "value_error" and where else ""
    advice = "" if message.endswith("?") else "; change it in the recipe or with --set."
    return f"{place}{message[0].lower() + message[1:]}{given}{advice}"


def sections_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with its dotted prefix ("dm.regression."), `model` itself first."""
    yield prefix, model
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            yield from sections_of(section, f"{prefix}{name}.")


def _other_key(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    """Where an unknown key probably belongs: its one namesake in another section, or the nearest name in its own."""
    *parents, last = map(str, location)
    own = ".".join([*parents, ""]) if parents else ""
    sections = dict(sections_of(model))
    namesakes = [prefix + last for prefix, section in sections.items() if last in section.model_fields]
    if len(namesakes) == 1:
        return f"; did you mean {namesakes[0]}?"
    return nearest(last, list(sections[own].model_fields))


def _section(annotation: Any) -> type[BaseModel] | None:
    union = typing.get_origin(annotation) in (Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)
