"""`msd demo`: everything on one recipe, every row of its table, and the page that shows it."""

from __future__ import annotations

from typing import Any

from msd.commands.console import Output, show_metrics
from msd.commands.distill import assemble_row, begin, partition_report, prepare, train
from msd.commands.evaluate import check_measurable, evaluate_run, table_of
from msd.commands.pretrain import pretrain_features
from msd.commands.report import make_report
from msd.commands.tables import partition_table
from msd.files import write_json
from msd.run import Run


def demo(run: Run, output: Output) -> dict[str, Any]:
    """The run's own feature network and teacher where the recipe asks for them, partition, pairs, students of every row,
    evaluation, report. Run again, it goes on where it stopped, and neither trains nor measures again what is there.

    Returns the content of `report/metrics.json`.
    """
    if run.recipe.evaluation.needs_classifier:
        pretrain_features(run, output)
    check_measurable(run)
    planned, inputs = prepare(run, output)
    begin(run, planned, inputs, output)
    output.show(partition_table(partition_report(run, inputs), output.width))
    train(run, planned.jobs, inputs, output, "training")
    for row in planned.rows:
        assemble_row(run, row, inputs)

    table = table_of(run)
    metrics = evaluate_run(run, table, output)
    write_json(run.metrics, metrics)  # so that they are there, whatever becomes of the page
    page = make_report(run, table, metrics, run.report, output)
    show_metrics(metrics, output)
    output.result(metrics, f"look at {page}")
    return metrics
