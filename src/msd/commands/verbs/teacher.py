"""`msd teacher inspect`, `msd teacher convert` and `msd teacher sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.checks import MAX_SEED
from msd.commands.options import Device, a_path

if TYPE_CHECKING:
    from msd.commands.console import Output

TeacherArgument = Annotated[
    str,
    typer.Argument(metavar="TEACHER", help="An EDM pickle, diffusers' or a teacher's folder, or packaged:NAME."),
]


def inspect(*, source: TeacherArgument, output: Output) -> None:
    """Say what a teacher is: network, conditions, noise levels, licence, and any doubt. No code in a file is run.

    Example: msd teacher inspect edm-imagenet-64x64-cond-adm.pkl
    """
    from msd.commands.teacher import inspect as command

    output.result(command(source, output))


def convert(
    *,
    source: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="An EDM pickle, or a folder of diffusers'.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The teacher's folder to write.")],
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="What the weights' maker allows.")] = None,
    output: Output,
) -> None:
    """Write a checkpoint as a teacher's folder, which diffusers loads too where it has such a network (ADM's, no SongUNet).

    Recipes take the file itself (teacher.source=FILE), which is then converted once, into the cache.

    Example: msd teacher convert edm-imagenet-64x64-cond-adm.pkl teachers/imagenet64
    """
    from msd.commands.teacher import convert as command

    value = command(source, folder, licence, output)
    output.result(value, f"{value['num_parameters']:,} parameters written into {folder}; next: msd teacher sample {folder}")


def sample(
    *,
    source: TeacherArgument,
    labels: Annotated[str | None, typer.Option(help="Classes, e.g. 3,7 or cat,dog; each by name or number.")] = None,
    num: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 8,
    solver: Annotated[str, typer.Option(help="A solver and its steps: heun18, dpmpp2m10, heun-sde18, euler4.")] = "heun18",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the noise.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=1000, help="Scale of guidance, of a network that knows no class too.")
    ] = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", parser=a_path, help="The grid of images.")] = Path("teacher.png"),
    output: Output,
) -> None:
    """Make images with a teacher, step by step, to see that it is what it should be.

    Example: msd teacher sample packaged:fashion --labels bag,sandal --num 4 --out grid.png
    """
    from msd.commands.teacher import sample as command
    from msd.conditions.names import split_names

    chosen = split_names(labels) if labels is not None else None
    value = command(source, chosen, num, solver, seed, guidance, "cpu" if device is None else device, out, output)
    output.result(value, f"{value['num_images']} images in {out}")
