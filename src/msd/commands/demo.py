"""`msd demo`: everything on one recipe, with the baselines a reader would ask for, and the page that shows it."""

from __future__ import annotations

import time
from typing import Any

from msd.cohort.manifest import assemble
from msd.commands.console import Output, partition_table, show_metrics
from msd.commands.distill import assemble_cohort, baseline_jobs, student_jobs, train
from msd.commands.evaluate import evaluate_run, make_report
from msd.commands.prepare import check_part_pairs, ensure_pairs, ensure_partition, open_teacher, partition_report
from msd.conditions.partition import Partition
from msd.files import write_json
from msd.run import Run


def demo(run: Run, output: Output) -> dict[str, Any]:
    """Partition, pairs, students, single students, evaluation, report. Run again, it goes on where it stopped.

    Returns the content of `report/metrics.json`.
    """
    begin = time.perf_counter()
    earlier = sum(run.timings().values())
    teacher = open_teacher(run)
    partition = ensure_partition(run, teacher)
    output.show(partition_table(partition_report(run, teacher)))
    check_part_pairs(partition, run)
    if run.recipe.dm.regression.weight > 0:
        ensure_pairs(run, teacher, output)

    students, baselines = student_jobs(run, partition), baseline_jobs(run, partition)
    # One queue: the longest job starts while students remain, so that no core waits for it alone at the end.
    longest = [job for job in baselines if job.settings.num_updates > run.recipe.dm.num_updates]
    shorter = [job for job in baselines if job not in longest]
    half = len(students) // 2
    with run.timed("training"):
        train(run, teacher, [*students[:half], *longest, *students[half:], *shorter], output)
    assemble_cohort(run, partition, students, run.cohort, run.recipe.name)
    recipe = run.recipe.model_dump(mode="json")
    for job in baselines:
        assemble(run.baseline(job.name), job.name, Partition.whole(partition.prior), [job.result], recipe=recipe)

    with run.timed("evaluate"):
        metrics = evaluate_run(run, output)
    metrics["wall_seconds"] = round(earlier + time.perf_counter() - begin, 1)
    write_json(run.metrics, metrics)
    page = make_report(run, output, metrics)
    show_metrics(metrics, output)
    output.result(metrics, f"\nlook at {page}")
    return metrics
