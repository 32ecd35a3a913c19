"""`msd pairs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import RunRequest

if TYPE_CHECKING:
    from msd.commands.console import Output


def pairs(*, request: RunRequest, output: Output) -> None:
    """Make the (noise, condition, teacher's sample) pairs; run again, it makes what is missing or damaged.

    Example: msd pairs digits --set pairs.num_pairs=6000
    """
    from msd.commands.distill import make_pairs

    with request.run().owned("msd pairs") as run:
        report = make_pairs(run, output)
    counts = f"{len(report['made'])} shards made, {len(report['kept'])} kept"
    counts += f"; {report['pairs_per_second']:,.1f} pairs a second" if report["made"] else ""
    output.result(report, f"{report['num_pairs']} pairs in {report['folder']} ({counts})")
