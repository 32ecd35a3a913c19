"""`msd init`: look at a source of images, measure this machine, and write the recipe that a budget of time pays for."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msd.commands.budget import Choice, Costs, Facts, duration, networks_for, parse_budget, plan_budget
from msd.commands.console import Output
from msd.commands.data import Look, look, report, section, show
from msd.commands.streams import one_line
from msd.commands.tables import Column, fitted
from msd.commands.timing import measure, probing
from msd.commands.written import Plan, recipe_of
from msd.data.sources.source import slug
from msd.errors import DataError, RunError
from msd.files import probe, write_text
from msd.fleet.local import num_fitting
from msd.reading import Broken
from msd.reading_yaml import parse_yaml
from msd.recipe import PACKAGED_PREFIX, DataSection, validate

MOST_PROCESSES = 6
"""Four students and two single ones: more are never trained at a time."""
STAGE_COLUMNS = (Column("stage", "left"), Column("what", "left", folds=True), Column("expected"))


@dataclass(frozen=True)
class Request:
    """What a user asks for: where images are, for how long, at what size (None: see `data.chosen_size`), written where."""

    source: str
    budget: str = "30m"
    size: int | None = None
    overrides: Sequence[str] | None = None
    out: Path | None = None


def init(request: Request, output: Output) -> dict[str, Any]:
    """Write a recipe for `request`, show what was found and chosen, and return it as plain values.

    Raises DataError for a source that cannot be used, RecipeError for a size or budget that fits no network, RunError for a
    file that is there already.
    """
    seconds = parse_budget(request.budget)
    data = section(request.source, request.overrides, size=request.size)
    if data.size is not None:
        networks_for(data.size)
    name = run_name(request.source, request.out)
    out = request.out or Path(f"{name}.yaml")
    check_free(out)
    with probing(min(MOST_PROCESSES, num_fitting(0, 1, "cpu"))) as prober:  # it starts while images are read
        found = look(data, output)
        facts = facts_of(found)
        output.say("timing updates of a few networks on this machine")
        costs = measure(seconds, facts, prober.num_processes, prober.ask, prober.start)
    choice = plan_budget(seconds, costs, facts)
    plan = Plan(name, run_name(request.source, None), located(found.data, out), seconds, found, facts, costs, choice)
    text = recipe_of(plan)
    check_readable(text, request.source)
    check_free(out)
    write_text(out, text)
    show(found, output)
    show_choice(choice, costs, output)
    return value_of(plan, out)


def check_readable(text: str, source: str) -> None:
    """Raises DataError when the recipe could not be read again, as with names that are not valid Unicode."""
    try:
        text.encode()
        validate(parse_yaml(text))
    except (UnicodeError, Broken) as error:
        raise DataError(
            f"{one_line(source)} has a name that a recipe cannot hold ({one_line(error)}); rename it."
        ) from error


def facts_of(found: Look) -> Facts:
    """What a budget depends on. Raises DataError where there is nothing to divide among students."""
    findings = found.findings
    if len(findings.classes) < 2:
        raise DataError(
            f"{one_line(findings.source)} has one class, and students are divided by class; put the images into a folder "
            "for each of two classes or more."
        )
    return Facts(tuple(findings.classes.values()), side_of(found), findings.channels)


def side_of(found: Look) -> int:
    """Pixels a side, as the images are read."""
    if found.data.size is not None:
        return found.data.size
    return int(next(iter(found.findings.sizes)).partition("x")[0])


def run_name(source: str, out: Path | None) -> str:
    """What the run is called: after the file, or after the source; plain letters, as it becomes the name of a folder."""
    if out is None:
        return f"my-{source.removeprefix(PACKAGED_PREFIX)}" if source.startswith(PACKAGED_PREFIX) else slug(Path(source))
    plain = unicodedata.normalize("NFKD", out.stem).encode("ascii", "ignore").decode()
    return re.sub("[^A-Za-z0-9_]+", "-", plain).strip("-")[:40].strip("-") or "mine"


def check_free(out: Path) -> None:
    """Raises RunError unless a new file can be written as `out`: a recipe that somebody may have changed is not replaced."""
    if os.path.lexists(out):
        raise RunError(f"{out} is there already; choose another name with --out, or move it.")
    if out.suffix not in (".yaml", ".yml"):
        raise RunError(f"{out} does not end in .yaml, as recipes do; choose such a name with --out.")
    probe(out.parent)


def located(data: DataSection, out: Path) -> str:
    """The source as the recipe names it: from its own folder where both lie in one tree, so that they can be moved together;
    else from the root."""
    if data.is_packaged:
        return data.source
    source, folder = Path(data.source).resolve(), out.absolute().parent.resolve()
    if source.is_relative_to(folder):
        return str(source.relative_to(folder))
    if source.parent != Path(source.anchor) and folder.is_relative_to(source.parent):
        return os.path.relpath(source, folder)
    return str(source)


def show_choice(choice: Choice, costs: Costs, output: Output) -> None:
    """The stages with their lengths and the time each is expected to take."""
    network = choice.cost.network
    words = {
        "start": "imports, tables, the page",
        "features": "a classifier of these images, for distances",
        "teacher": f"{choice.num_updates:,} updates of {choice.teacher_batch} images",
        "pairs": f"{choice.num_pairs:,} pairs, {choice.solver_steps} Heun steps",
        "students": f"{choice.num_parts} students of {choice.dm_updates:,} updates, and "
        + ("two rows of single students" if choice.has_equal_total else "one single student"),
        "evaluation": f"{choice.num_samples:,} images a row",
    }
    rows = [(name, words[name], duration(taken)) for name, taken in choice.seconds.items()]
    rows.append(("all", "", duration(choice.total)))
    title = f"network {'-'.join(map(str, network.block_out_channels))}, {choice.cost.num_parameters:,} parameters"
    output.show(fitted(title, STAGE_COLUMNS, rows, output.width))
    if sentence := busy_sentence(costs, choice):
        output.say(sentence)


def busy_sentence(costs: Costs, choice: Choice) -> str:
    """What to expect where other programs want the same cores; empty where none do."""
    if costs.busy < 1.3:
        return ""
    return (
        f"other programs are busy on this machine: if they stay, all takes about {costs.busy:.1f} times as long "
        f"({duration(costs.busy * choice.total)})."
    )


def value_of(plan: Plan, out: Path) -> dict[str, Any]:
    """All that was found, measured and chosen, as plain values."""
    choice, cost = plan.choice, plan.choice.cost
    return {
        "recipe": str(out),
        "name": plan.name,
        "found": report(plan.found),
        "budget_seconds": plan.seconds,
        "expected_seconds": {
            **{name: round(taken, 1) for name, taken in choice.seconds.items()},
            "all": round(choice.total, 1),
        },
        "choice": {
            "size": plan.facts.size,
            "network": cost.network.model_dump(mode="json"),
            "num_parameters": cost.num_parameters,
            "pretrain.num_updates": choice.num_updates,
            "pairs.num_pairs": choice.num_pairs,
            "partition.num_parts": choice.num_parts,
            "dm.num_updates": choice.dm_updates,
            "evaluation.num_samples": choice.num_samples,
            "rows": ["single", *["single-equal-total"] * choice.has_equal_total],
        },
        "measured": {
            "num_processes": plan.costs.num_processes,
            "busy": round(plan.costs.busy, 2),
            "networks": [
                {
                    "block_out_channels": list(one.network.block_out_channels),
                    "num_parameters": one.num_parameters,
                    "teacher_update": one.teacher_update,
                    "evaluation": one.evaluation,
                    "regression_update": one.regression_update,
                    "full_update": one.full_update,
                }
                for one in plan.costs.networks
            ],
        },
    }
