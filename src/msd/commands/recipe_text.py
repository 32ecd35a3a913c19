"""A recipe as a file that explains itself: every value is written by the YAML library, every comment without line breaks.

So no name of a class or a path, whatever letters it has, can end a comment, add a key or break the file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from msd.commands.streams import one_line

WIDTH = 120
"""Letters of a line of comment."""


@dataclass(frozen=True)
class Line:
    """A key with its value, and why it has it."""

    key: str
    value: Any
    why: str = ""


@dataclass(frozen=True)
class Part:
    """A section of a recipe: its name ("" for the recipe's own keys), its lines and inner sections, and a remark."""

    name: str
    lines: Sequence[Line | Part]
    about: str = ""


def recipe_text(header: Iterable[str], parts: Sequence[Part]) -> str:
    """The whole file."""
    pieces = [text for line in header for text in comment(line)]
    for part in parts:
        pieces += ["", *_part(part, "")]
    return "\n".join(pieces).lstrip("\n") + "\n"


def comment(text: str, indent: str = "") -> list[str]:
    """Text as lines of comment, with nothing in it that is not printed. An empty text is an empty line of comment."""
    plain = one_line(text)
    found = textwrap.wrap(plain, WIDTH - len(indent) - 2, break_on_hyphens=False) or [""]
    return [f"{indent}# {line}".rstrip() for line in found]


def scalar(value: Any) -> str:
    """A value on one line, as YAML has it."""
    if isinstance(value, float):
        return _number(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip(" \n")  # not other white space: it is part of a text


def _number(value: float) -> str:
    """A float that YAML reads as one: PyYAML takes 1e-3 for a text, and 1.0e-3 for a number."""
    text = f"{value:.6g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        text = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
    return text


def _part(part: Part, indent: str) -> list[str]:
    pieces = [text for line in part.about.splitlines() for text in comment(line, indent)]
    if part.name:
        pieces.append(f"{indent}{part.name}:")
    inner = indent + "  " if part.name else indent
    for line in part.lines:
        pieces += _part(line, inner) if isinstance(line, Part) else _line(line, inner)
    return pieces


def _line(line: Line, indent: str) -> list[str]:
    text = f"{indent}{line.key}: {scalar(line.value)}"
    why = one_line(line.why)
    if not why:
        return [text]
    if len(text) + len(why) + 4 <= WIDTH:
        return [f"{text}  # {why}"]
    return [*comment(line.why, indent), text]
