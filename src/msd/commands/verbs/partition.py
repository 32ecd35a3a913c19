"""`msd partition`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import RunRequest

if TYPE_CHECKING:
    from msd.commands.console import Output


def partition(*, request: RunRequest, output: Output) -> None:
    """Divide the conditions among the students; prints and saves the report.

    Example: msd partition digits --set partition.method=balanced-kmeans --out runs/kmeans
    """
    from msd.commands.distill import begin, partition_report, prepare
    from msd.commands.tables import partition_table

    with request.run().owned("msd partition") as run:
        planned, inputs = prepare(run, output)
        begin(run, planned, inputs, output)
    report = partition_report(run, inputs)
    output.show(partition_table(report, output.width))
    output.result(report, f"saved as {run.partition}")
