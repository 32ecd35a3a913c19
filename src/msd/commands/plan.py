"""`msd plan`: the rows of a recipe, the jobs they are made by, in which order, and what they share. Does nothing."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from msd.commands.console import Output
from msd.fleet.jobs import Job, PairsTask
from msd.fleet.plan import cost, plan, read_inputs
from msd.recipe import Recipe


def show_plan(recipe: Recipe, output: Output) -> dict[str, Any]:
    """Print and return the plan. Raises what `plan` raises."""
    planned = plan(recipe, read_inputs(recipe))
    rows, jobs = (
        Table(title="rows", title_justify="left"),
        Table(title="jobs, in the order of the queue", title_justify="left"),
    )
    for heading in ("row", "what", "held equal", "jobs"):
        rows.add_column(heading, overflow="fold")
    for row in planned.rows:
        names = [planned.by_key[key].name for key in row.jobs]
        rows.add_row(row.name, row.note, row.equal or "", ", ".join(names))
    for heading in ("job", "work", "waits for", "for rows", "images"):
        jobs.add_column(heading, overflow="fold", justify="right" if heading == "images" else "left")
    for job in planned.jobs:
        needs = ", ".join(planned.by_key[key].name for key in job.needs.values())
        shared = planned.shared_by(job.key)
        jobs.add_row(job.name, _work(job), needs, ", ".join(shared), f"{cost(job):,}")
    output.show(rows)
    output.show(jobs)
    return {
        "recipe": recipe.name,
        "rows": [
            {"name": row.name, "note": row.note, "equal": row.equal, "num_students": len(row.jobs), "jobs": list(row.jobs)}
            for row in planned.rows
        ],
        "jobs": [
            {
                "key": job.key,
                "name": job.name,
                "kind": job.task.kind,
                "hash": job.task.hash,
                "after": sorted(job.needs.values()),
                "rows": list(planned.shared_by(job.key)),
                "images": cost(job),
            }
            for job in planned.jobs
        ],
    }


def _work(job: Job) -> str:
    if isinstance(job.task, PairsTask):
        return f"{job.task.num_pairs:,} pairs"
    return ", ".join(
        f"{stage.name}: {stage.settings['num_updates']:,} updates of {stage.settings['batch_size']}"
        for stage in job.task.stages
    )
