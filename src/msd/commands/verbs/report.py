"""`msd report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import Out, RunArgument

if TYPE_CHECKING:
    from msd.commands.console import Output


def report(*, run: RunArgument, out: Out = None, output: Output) -> None:
    """Write a run's page (report/index.html) from its last evaluation, or measure it first.

    Example: msd report runs/demo
    """
    from msd.commands.evaluate import make_report
    from msd.run import Run

    with Run.open(run).owned("msd report") as opened:
        page = make_report(opened, output, folder=out or opened.report)
    output.result({"report": str(page)}, f"look at {page}")
