"""`msd demo`: everything on one recipe, every row of its table, and the page that shows it."""

from __future__ import annotations

import time
from typing import Any

from msd.commands.console import Output, partition_table, show_metrics
from msd.commands.distill import assemble_row, begin, partition_report, prepare, train
from msd.commands.evaluate import evaluate_run, make_report
from msd.files import write_json
from msd.run import Run


def demo(run: Run, output: Output) -> dict[str, Any]:
    """Partition, pairs, students of every row, evaluation, report. Run again, it goes on where it stopped.

    Returns the content of `report/metrics.json`.
    """
    clock = time.perf_counter()
    earlier = sum(run.timings().values())
    planned, inputs = prepare(run)
    begin(run, planned, inputs, output)
    output.show(partition_table(partition_report(run, inputs)))
    with run.timed("training"):
        train(run, planned.jobs, inputs, output)
    for row in planned.rows:
        assemble_row(run, row)

    with run.timed("evaluate"):
        metrics = evaluate_run(run, output)
    metrics["wall_seconds"] = round(earlier + time.perf_counter() - clock, 1)
    write_json(run.metrics, metrics)
    page = make_report(run, output, metrics)
    show_metrics(metrics, output)
    output.result(metrics, f"\nlook at {page}")
    return metrics
