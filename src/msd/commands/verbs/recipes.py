"""`msd recipes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from msd.commands.console import Output


def recipes(
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this recipe (a name or a path) whole.")] = None,
    output: Output,
) -> None:
    """List the packaged recipes with cost and expected result, or explain every value of one and what each row changes.

    Example: msd recipes digits
    """
    from msd.commands.show import list_recipes, show_recipe

    output.result(show_recipe(name, output) if name else list_recipes(output))
