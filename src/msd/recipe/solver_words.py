"""A solver and its number of steps in one word, as tables name them: heun18."""

from __future__ import annotations

import re
from typing import cast

from msd.checks import MAX_STEPS, shown
from msd.recipe.messages import nearest
from msd.recipe.words import SOLVER_METHODS, SolverMethod


def read_solver_word(word: str) -> tuple[SolverMethod, int]:
    """`heun18` as (heun, 18). Raises ValueError, as pydantic wants it, for another form, an unknown method, too many steps.

    A method's name may hold digits (dpmpp2m), but does not end in one.
    """
    found = re.fullmatch(r"(.*[^0-9])([1-9][0-9]*)", word, re.ASCII)
    if found is None:
        raise ValueError(f"{shown(word)} is no solver with its number of steps; write one like {SOLVER_METHODS[0]}18")
    method, steps = found.groups()
    if method not in SOLVER_METHODS:
        raise ValueError(f"there is no solver {shown(method)} (of {shown(word)}){nearest(method, SOLVER_METHODS)}")
    if len(steps) > len(str(MAX_STEPS)) or int(steps) > MAX_STEPS:
        raise ValueError(f"{shown(word)} takes more than {MAX_STEPS} steps; take fewer")
    return cast(SolverMethod, method), int(steps)
