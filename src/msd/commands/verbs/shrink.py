"""`msd shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import RecipeRequest, a_path

if TYPE_CHECKING:
    from msd.commands.console import Output


def shrink(
    *,
    request: RecipeRequest,
    reduce: Annotated[float, typer.Option(help="Share of the teacher's parameters to save, from 0 to below 1.")] = 0.42,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", parser=a_path, help="Where the table is saved, with configurations."),
    ] = None,
    output: Output,
) -> None:
    """Show the smaller networks that a student of the recipe's teacher can have, and which one a reduction chooses.

    Example: msd shrink digits --reduce 0.71 --out sizes.json

    Parameters, arithmetic and kernels are counted, latency is measured on this machine with random weights.
    """
    from msd.commands.shrink import shrink as command

    value = command(request.load(), reduce, out, output)
    output.result(value, f"saved as {out}" if out else None)
