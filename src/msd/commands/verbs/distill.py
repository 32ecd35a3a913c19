"""`msd distill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from msd.commands.options import RunRequest, numbers

if TYPE_CHECKING:
    from msd.commands.console import Output


def distill(
    *,
    students: Annotated[str | None, typer.Option(help="Only these students, e.g. 0,2.")] = None,
    request: RunRequest,
    output: Output,
) -> None:
    """Train the students side by side and assemble the cohort; run again, it goes on where it stopped.

    Example: msd distill digits --students 0,2 --out runs/mine
    """
    chosen = numbers(students, "--students") if students is not None else None
    from msd.commands.distill import distill as command

    with request.run().owned("msd distill") as run:
        summary = command(run, output, chosen)
    missing = ", ".join(map(str, summary["missing_students"]))
    output.result(summary, f"cohort: {summary['cohort']}" if not missing else f"still missing: students {missing}")
