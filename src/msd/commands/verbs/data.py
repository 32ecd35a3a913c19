"""`msd data check` and `msd data reference`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import Overrides, RecipeRequest, SourceArgument, a_path

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
    request: RecipeRequest,
    out: Annotated[Path, typer.Option("--out", metavar="PATH", parser=a_path, help="The file of features to write.")],
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", parser=a_path, help="Whose feature network it is (for classifier).")
    ] = None,
    output: Output,
) -> None:
    """Write the features of a recipe's images, so that students can be measured where the images are not.

    Example: msd data reference pictures.yaml --run runs/pictures --out pictures-features.safetensors
    """
    from msd.commands.reference import make_reference

    recipe = request.load()
    value = make_reference(recipe.data, recipe.evaluation.features, out, output, run_folder=run)
    output.result(value, f"saved as {out}")
