"""`msd plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import RecipeRequest

if TYPE_CHECKING:
    from msd.commands.console import Output


def plan(*, request: RecipeRequest, output: Output) -> None:
    """Show what a recipe would do, without doing it: rows, jobs, their order, and the work they share.

    Example: msd plan digits --set partition.num_parts=2
    """
    from msd.commands.plan import show_plan

    output.result(show_plan(request.load(), output))
