"""`msd init`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import Out, Overrides, SourceArgument

if TYPE_CHECKING:
    from msd.commands.console import Output


def init(
    *,
    source: SourceArgument,
    budget: Annotated[str, typer.Option(help="Time that everything may take, e.g. 90s, 30m, 2h or 1h30m.")] = "30m",
    size: Annotated[
        int | None, typer.Option(help="Height and width of the images (default: their own up to 64, else 32).")
    ] = None,
    overrides: Overrides = None,
    out: Out = None,
    output: Output,
) -> None:
    """Look at a folder (zip, .npz, ...) of images, and write the recipe that a budget of time pays for here.

    --set changes how the images are read (data.KEY=VALUE); the recipe itself is yours to edit.

    Example: msd init pictures --budget 30m --out pictures.yaml, then msd demo pictures.yaml
    """
    from msd.commands.init import Request
    from msd.commands.init import init as command

    value = command(Request(source, budget, size, overrides, out), output)
    recipe = value["recipe"]
    output.result(value, f"wrote {recipe}; next: msd demo {recipe} --out runs/{value['name']}")
