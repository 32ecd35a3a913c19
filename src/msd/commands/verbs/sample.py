"""`msd sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.checks import MAX_COUNT
from msd.commands.options import CohortArgument, Device, Seed, a_path, numbers

if TYPE_CHECKING:
    from msd.commands.console import Output


def sample(
    *,
    cohort: CohortArgument,
    labels: Annotated[str | None, typer.Option(help="Classes, e.g. 3,7 (all by default).")] = None,
    num: Annotated[int, typer.Option(min=1, max=MAX_COUNT, help="Images of each class.")] = 8,
    seed: Seed = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(metavar="PATH", parser=a_path, help="A .png grid, or .npz arrays.")] = Path(
        "samples.png"
    ),
    output: Output,
) -> None:
    """Generate images, one routed step each.

    Example: msd sample runs/demo/cohort --labels 3,7 --num 16 --out grid.png
    """
    chosen = numbers(labels, "--labels") if labels else None
    from msd.commands.sample import sample as command

    value = command(cohort, chosen, num, seed or 0, out, device or "cpu")
    output.result(value, f"{value['num_images']} images in {out}")
