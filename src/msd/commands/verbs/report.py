"""`msd report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import Out, RunArgument

if TYPE_CHECKING:
    from msd.commands.console import Output


def report(*, run: RunArgument, out: Out = None, output: Output) -> None:
    """Write a run's page (report/index.html) from its last evaluation; what changed since then is measured first.

    Example: msd report runs/demo
    """
    from msd.commands.report import report as command
    from msd.commands.targets import check_report
    from msd.run import Run

    with Run.open(run).owned("msd report") as opened:
        folder = out or opened.report
        check_report(folder, opened)
        page = command(opened, folder, output)
    output.result({"report": str(page)}, f"look at {page}")
