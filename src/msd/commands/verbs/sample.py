"""`msd sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.checks import MAX_COUNT
from msd.commands.options import CohortArgument, Device, Seed, a_path

if TYPE_CHECKING:
    from msd.commands.console import Output


def sample(
    *,
    cohort: CohortArgument,
    labels: Annotated[str | None, typer.Option(help="Classes by name or number, e.g. cat,dog (all by default).")] = None,
    num: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Images of each class.")] = 8,
    names: Annotated[bool, typer.Option(help="Write each class's name beside its row of a .png.")] = True,
    seed: Seed = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(metavar="PATH", parser=a_path, help="A .png grid, or .npz arrays.")] = Path(
        "samples.png"
    ),
    output: Output,
) -> None:
    """Generate images, one routed step each.

    Example: msd sample runs/demo/cohort --labels 3,7 --num 16 --out grid.png

    A name with a comma goes in quotes: --labels '"a, b",dog'. A name is looked for before a number.
    """
    from msd.conditions.names import split_names

    chosen = split_names(labels) if labels is not None else None
    from msd.commands.sample import sample as command

    value = command(cohort, chosen, num, seed or 0, out, "cpu" if device is None else device, names=names)
    output.result(value, f"{value['num_images']} images in {out}")
