"""`msd status` and `msd recipes`: looking, without doing anything. Neither needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from msd.commands.console import Output
from msd.commands.streams import one_line
from msd.commands.tables import Column, describe, fitted, job_table, with_note
from msd.fleet.jobs import JOB, Job, read_status
from msd.fleet.stored import StoredPlan
from msd.recipe import BASELINES, Row, SectionExplanation, explain, load_recipe, packaged_recipes
from msd.recipe.overrides import flattened
from msd.run import Run

KEY_WIDTH = 28
"""Letters for a key's name, where the terminal has room for as much beside it."""
ROW_COLUMNS = (
    Column("row", "left", folds=True),
    Column("what", "left", rank=1, folds=True),
    Column("held equal", "left", rank=2, folds=True),
    Column("changes", "left", folds=True),
)


def status(folder: Path, output: Output) -> dict[str, Any]:
    """Every job of a run with its last word. Raises RunError when `folder` is no run."""
    run = Run.open(folder)
    planned = StoredPlan.load(run.plan).jobs if run.plan.exists() else ()
    # A job that is not in the plan is an earlier one, whose inputs have changed since. One without a file was never begun.
    jobs = [Job.load(run.jobs / key) for key in planned if (run.jobs / key / JOB).exists()]
    jobs += [Job.load(path.parent) for path in sorted(run.jobs.glob(f"*/{JOB}")) if not planned]
    statuses = {job.name: read_status(run.jobs / job.key) for job in jobs}
    if statuses:
        output.show(job_table(statuses, {job.name: describe(job) for job in jobs}, output.width))
    return {
        "run": str(run.folder),
        "recipe": run.recipe.name,
        "partition": run.partition.exists(),
        "jobs": {name: asdict(value) for name, value in statuses.items()},
        "cohort": str(run.cohort) if (run.cohort / "cohort.json").exists() else None,
        "report": str(run.report / "index.html") if (run.report / "index.html").exists() else None,
        "timings": run.timings(),
    }


def list_recipes(output: Output) -> list[dict[str, str]]:
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


def show_recipe(name: str, output: Output) -> dict[str, Any]:
    """Every key of one recipe: its value, whether the recipe gives it, and what it means; and what each row of its table
    changes. Raises RecipeError."""
    recipe = load_recipe(name)
    sections, rows = explain(recipe), [recipe.row(row) for row in recipe.rows]
    for section in sections:
        output.show(_section_table(section, output.width))
    own = flattened(recipe.model_dump(mode="json"))
    table = fitted("rows beside the cohort", ROW_COLUMNS, [_row_line(row, own) for row in rows], output.width)
    others = ", ".join(name for name in BASELINES if name not in recipe.rows)
    output.show(with_note(table, f"rows can also name: {others} (docs/baselines.md)" if others else None))
    keys = [asdict(key) for section in sections for key in section.keys]
    return {
        "name": recipe.name,
        "keys": {key.pop("key"): key for key in keys},
        "rows": {row.pop("name"): row for row in map(asdict, rows)},
    }


def _row_line(row: Row, own: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """`own` are the recipe's values: what a row sets to the same is no change."""
    changes = [f"{key}: {_short(value)}" for key, value in row.overrides.items() if own.get(key, row) != value]
    rule = [] if row.batch == Row.batch else [f"batch: {row.batch}"]
    return row.name, row.note, row.equal, one_line(", ".join([*changes, *rule]))


def _short(value: Any) -> str:
    """Four digits of a number that was computed: enough to know it by."""
    return f"{value:.4g}" if isinstance(value, float) else _value(value)


def _section_table(section: SectionExplanation, width: int) -> Table:
    """A section's keys; beside each its value (bold where the recipe gives it), with the meaning below."""
    title = Text.assemble((section.name or "recipe", "bold"), f": {section.documentation}")
    table = Table(title=title, title_justify="left", title_style="", show_header=False, box=None, pad_edge=False)
    has_room = width >= 2 * KEY_WIDTH
    table.add_column("key", no_wrap=has_room, min_width=KEY_WIDTH if has_room else None, overflow="fold")
    table.add_column("value and meaning", overflow="fold")
    for key in section.keys:
        name = key.key.removeprefix(f"{section.name}.")
        value = (_value(key.value), "bold" if key.origin == "recipe" else "")
        table.add_row(f"  {name}", Text.assemble(value, (f"  ({key.origin})\n{key.documentation}", "dim")))
    table.add_row()
    return table


def _value(value: Any) -> str:
    """As YAML would have it; a mapping of mappings has a line for each."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value:
        return "\n".join(f"{key}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in value.items())
    return json.dumps(value, ensure_ascii=False)
