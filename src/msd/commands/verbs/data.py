"""`msd data check` and `msd data reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import Changes, Overrides, SourceArgument, a_path

if TYPE_CHECKING:
    from msd.commands.console import Output


def check(*, source: SourceArgument, overrides: Overrides = None, output: Output) -> None:
    """Say what a folder (zip, .npz, ...) of images holds: layout, classes, sizes, damaged files.

    The images are decoded once into a cache, which a recipe with the same values uses; --set changes how (data.KEY=VALUE).

    Example: msd data check pictures --set data.skip_damaged=true
    """
    from msd.commands.data import check as command

    output.result(command(source, overrides, output))


def reference(
    *,
    images: Annotated[str, typer.Argument(metavar="IMAGES", help="A recipe, or a folder, zip or .npz of images.")],
    changes: Changes,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="PATH", parser=a_path, help="The file to write; .npz: mean and covariance alone."),
    ],
    features: Annotated[
        str | None, typer.Option(metavar="WORD", help="As evaluation.features, e.g. lite0 or inception:FILE.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", parser=a_path, help="Whose feature network it is (for classifier).")
    ] = None,
    output: Output,
) -> None:
    """Write the features of images, so that students can be measured where the images are not.

    As .npz it is their mean and covariance, of all images, however many: the reference of the papers' protocol. Stopped, the
    same command goes on with those.

    Example: msd data reference pictures.yaml --run runs/pictures --out pictures-features.safetensors
    """
    from msd.commands.reference import make_reference, wanted

    data, network, device = wanted(images, features, changes.overrides, changes.device)
    value = make_reference(data, network, out, output, run_folder=run, device=device)
    output.result(value, f"saved as {out}")
