"""`msd status` and `msd recipes`: looking, without doing anything. Neither needs torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from msd.commands.console import Output, condition_list, job_table
from msd.fleet.jobs import Job, read_status
from msd.recipe import load_recipe, packaged_recipes
from msd.run import Run


def status(folder: Path, output: Output) -> dict[str, Any]:
    """Every job of a run with its last word. Raises RunError when `folder` is no run."""
    run = Run.open(folder)
    jobs = [Job.load(path.parent) for path in sorted(run.jobs.glob("*/job.json"))]
    statuses = {job.name: read_status(job.folder) for job in jobs}
    if statuses:
        output.show(job_table(statuses, {job.name: condition_list(job.partition["parts"][job.part]) for job in jobs}))
    return {
        "run": str(run.folder),
        "recipe": run.recipe.name,
        "partition": run.partition.exists(),
        "pairs": (run.pairs / "pairs.json").exists(),
        "jobs": {name: asdict(value) for name, value in statuses.items()},
        "cohort": str(run.cohort) if (run.cohort / "cohort.json").exists() else None,
        "report": str(run.report / "index.html") if (run.report / "index.html").exists() else None,
        "timings": run.timings(),
    }


def recipes(output: Output) -> list[dict[str, str]]:
    """The packaged recipes with cost and expected result."""
    rows = []
    table = Table(title="packaged recipes", title_justify="left")
    for heading in ("name", "what", "cost", "expected"):
        table.add_column(heading, overflow="fold")
    for name in packaged_recipes():
        recipe = load_recipe(name)
        table.add_row(name, recipe.summary, recipe.cost, recipe.expected)
        rows.append({"name": name, "summary": recipe.summary, "cost": recipe.cost, "expected": recipe.expected})
    output.show(table)
    return rows
