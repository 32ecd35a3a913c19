"""`msd demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msd.commands.options import RunRequest

if TYPE_CHECKING:
    from msd.commands.console import Output

DEMO = RunRequest(recipe="digits", out=Path("runs/demo"))


def demo(*, request: RunRequest = DEMO, output: Output) -> None:
    """Everything on one recipe, with single students to compare and a page to look at.

    Example: msd demo --out runs/demo
    """
    from msd.commands.demo import demo as command

    with request.run().owned("msd demo") as run:
        command(run, output)
