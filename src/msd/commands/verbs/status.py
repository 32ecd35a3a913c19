"""`msd status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import RunArgument

if TYPE_CHECKING:
    from msd.commands.console import Output


def status(*, run: RunArgument, output: Output) -> None:
    """Show how far each student of a run is.

    Example: msd status runs/demo
    """
    from msd.commands.show import status as command

    value = command(run, output)
    output.result(value, f"cohort: {value['cohort'] or 'not yet'}, report: {value['report'] or 'not yet'}")
