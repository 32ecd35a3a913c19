"""`msd plan`: the rows of a recipe, the jobs they are made by, in which order, what they share and need. Does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msd.commands.console import Output
from msd.commands.memory import show_needs
from msd.commands.tables import Column, describe, fitted, with_note
from msd.conditions.names import unevenness
from msd.conditions.partition import Partition
from msd.fleet.foresight import Outlook, look_ahead
from msd.fleet.jobs import Job, PairsTask
from msd.fleet.queue import cost
from msd.recipe import Recipe

ROW_COLUMNS = (
    Column("row", "left", folds=True),
    Column("what", "left", folds=True),
    Column("held equal", "left", rank=2, folds=True),
    Column("jobs", "left", rank=1, folds=True),
)
JOB_COLUMNS = (
    Column("job", "left", folds=True),
    Column("conditions", "left", rank=3, folds=True),
    Column("work", "left", folds=True),
    Column("waits for", "left", rank=1, folds=True),
    Column("for rows", "left", rank=2, folds=True),
    Column("images"),
)


def show_plan(recipe: Recipe, output: Output) -> dict[str, Any]:
    """Print and return the plan. Raises what `plan` raises.

    Where a file that the recipe names is not there, or the run's own teacher not trained, the keys and hashes of what
    follows are not known (null).
    """
    outlook = look_ahead(recipe)
    first, planned, classes = outlook.first, outlook.plan, outlook.inputs.teacher.classes
    rows, jobs = [], [(job.name, "", _work(job), "", "all", f"{cost(job):,}") for job in first]
    for row in planned.rows:
        names = [planned.by_key[key].name for key in row.jobs]
        rows.append((row.name, row.note, row.equal or "", ", ".join(names)))
    for job in planned.jobs:
        needs = ", ".join([*(planned.by_key[key].name for key in job.needs.values()), *(job.name for job in first)])
        shared = planned.shared_by(job.key)
        jobs.append((job.name, describe(job, classes), _work(job), needs, ", ".join(shared), f"{cost(job):,}"))
    output.show(fitted("rows", ROW_COLUMNS, rows, output.width))
    table = fitted("jobs, in the order of the queue", JOB_COLUMNS, jobs, output.width)
    output.show(with_note(table, unevenness(planned.main.partition.prior, classes)))
    needs = show_needs(recipe, outlook, output)
    return {
        "recipe": recipe.name,
        "rows": [
            {"name": row.name, "note": row.note, "equal": row.equal, "num_students": len(row.jobs), "jobs": list(row.jobs)}
            for row in planned.rows
        ],
        "jobs": [
            {
                "key": job.key if outlook.is_certain or job in first else None,
                "name": job.name,
                "kind": job.task.kind,
                "hash": job.task.hash if outlook.is_certain or job in first else None,
                "conditions": _conditions(job, classes),
                "after": _after(job, outlook),
                "rows": list(planned.shared_by(job.key)) if job not in first else [row.name for row in planned.rows],
                "images": cost(job),
            }
            for job in (*first, *planned.jobs)
        ],
        "needs": needs,
    }


def _after(job: Job, outlook: Outlook) -> list[str]:
    """The keys of the jobs that it waits for, the name of one whose key is not known yet."""
    first, planned = outlook.first, outlook.plan
    if outlook.is_certain:
        return sorted(job.needs.values())
    names = sorted(planned.by_key[key].name for key in job.needs.values())
    return [] if job in first else [*(one.key for one in first), *names]


def _conditions(job: Job, classes: Sequence[str]) -> list[str] | None:
    """The names of the classes that a student owns; None for work for all of them."""
    if isinstance(job.task, PairsTask) or job.task.partition is None:
        return None
    partition = Partition.from_json(job.task.partition, source=job.name)
    return [classes[number] for number in partition.parts[job.task.part or 0]]


def _work(job: Job) -> str:
    if isinstance(job.task, PairsTask):
        return f"{job.task.num_pairs:,} pairs"
    return ", ".join(
        f"{stage.name}: {stage.settings['num_updates']:,} updates of {stage.settings['batch_size']}"
        for stage in job.task.stages
    )
