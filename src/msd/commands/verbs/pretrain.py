"""`msd pretrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import RunRequest
from msd.errors import RecipeError

if TYPE_CHECKING:
    from msd.commands.console import Output


def pretrain(
    *,
    network: Annotated[
        str, typer.Option(help="teacher, or features: the classifier behind the Frechet distance.")
    ] = "teacher",
    request: RunRequest,
    output: Output,
) -> None:
    """Train the recipe's teacher from images and record its quality.

    Example: msd pretrain digits --out runs/teacher, then msd distill digits --set teacher.source=runs/teacher/teacher
    """
    if network not in ("teacher", "features"):
        raise RecipeError(f"--network {network} is not known; choose teacher or features.")
    from msd.commands.pretrain import pretrain_features, pretrain_teacher

    with request.run().owned("msd pretrain") as run:
        facts = (pretrain_teacher if network == "teacher" else pretrain_features)(run, output)
    quality = facts.get("quality", facts)
    shown = {key: quality[key] for key in ("frechet_distance", "label_accuracy", "held_out_accuracy") if key in quality}
    folder = run.teacher if network == "teacher" else run.features
    output.result(facts, f"{folder}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
