"""`msd plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import RecipeRequest

if TYPE_CHECKING:
    from msd.commands.console import Output


def plan(*, request: RecipeRequest, output: Output) -> None:
    """Show what a recipe would do, without doing it: rows, jobs, their order and shared work, and what each training needs.

    Loads no weights. Of each training it says parameters, memory by part, which GPU holds it, and, where others' records
    tell, the hours that it takes one. A missing file with a blueprint (teacher.blueprint) is planned with that.

    Example: msd plan digits --set partition.num_parts=2
    """
    from msd.commands.plan import show_plan

    output.result(show_plan(request.load(), output))
