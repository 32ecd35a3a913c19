"""How many evaluations of a denoiser a solver's steps cost. No torch here: whoever plans asks too."""

from __future__ import annotations

from collections.abc import Callable


def _one_a_step(num_steps: int) -> int:
    return num_steps


def _two_but_in_the_last(num_steps: int) -> int:
    return 2 * num_steps - 1


NUM_EVALUATIONS: dict[str, Callable[[int], int]] = {
    "euler": _one_a_step,
    "dpmpp2m": _one_a_step,
    "heun": _two_but_in_the_last,
    "heun-sde": _two_but_in_the_last,
}
"""By the solver's name, as in `solvers.METHODS`: the count for a number of steps."""
