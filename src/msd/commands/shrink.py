"""`msd shrink`: the table that a student's size is chosen from. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from msd.commands.console import Output
from msd.commands.tables import Column, fitted, with_note
from msd.commands.targets import SIZES_KIND, check_file, is_sizes
from msd.data.images import load_images
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.errors import RecipeError
from msd.evaluation.latency import LATENCY_THREADS, machine, measure_latency
from msd.evaluation.samplers import Sampler
from msd.files import write_json
from msd.networks.anatomy import Anatomy, read_anatomy
from msd.networks.build import LabelledUNet, build_unet
from msd.networks.cost import Work, work_of
from msd.networks.facts import read_config, verified_facts
from msd.networks.folder import spec_from_json
from msd.networks.shrink import Candidate, candidates, check_reducible, smaller_config
from msd.recipe import PRETRAIN, Recipe
from msd.stages.pretrain import foreseen_teacher
from msd.teachers.facts import read_teacher
from msd.training.engine import Engine

BATCHES = (1, 64)
REPEATS = 20
MOST_FLOPS = 2e12
"""Arithmetic of a request that is still timed on a CPU: some minute or so."""
NEIGHBOURHOOD = 0.15
MOST_NEIGHBOURS = 6
"""Of configurations whose cut is within NEIGHBOURHOOD of the chosen one's."""
COLUMNS = (
    Column("", "left"),
    Column("widths", "left", folds=True),
    Column("blocks", rank=2),
    Column("groups", rank=5),
    Column("attention", "left", rank=4),
    Column("parameters"),
    Column("cut"),
    Column("MFLOP", rank=3),
    Column("kernels", rank=1),
    *(Column(f"ms \u00d7{batch}", rank=0 if batch == 1 else 1) for batch in BATCHES),
)


def shrink(recipe: Recipe, reduce: float, out: Path | None, output: Output) -> dict[str, Any]:
    """Print and return the chosen configuration beside the teacher's and its neighbours; saved in `out`, if given.

    Raises RecipeError for a reduction that no configuration reaches, and for a teacher of a kind that has no smaller ones.
    """
    if out is not None:
        check_file(out, is_sizes, "tables of sizes")
    device = Engine.on(recipe.device).device
    config, spec = teacher_of(recipe)
    chosen, known = smaller_config(config, reduce), candidates(config)
    shown = selection(known, chosen)
    rows = []
    with output.progress("measuring", len(shown) * len(BATCHES)) as advance:
        for candidate in shown:
            work = work_of(LabelledUNet.kind, candidate.config, spec)
            latency = _latency(candidate, spec, work, device, lambda: advance(1))
            rows.append(_row(candidate, work, latency, is_chosen=candidate == chosen))
    value = {
        "schema": 1,
        "kind": SIZES_KIND,
        "recipe": recipe.name,
        "teacher": recipe.teacher.source,
        "reduce": reduce,
        "num_candidates": len(known),
        "machine": machine(str(device)),
        "latency_threads": LATENCY_THREADS,
        "rows": rows,
    }
    output.show(_table(value, output.width))
    if out is not None:
        write_json(out, value)
    return value


def teacher_of(recipe: Recipe) -> tuple[dict[str, Any], DenoiserSpec]:
    """Configuration and spec of the recipe's teacher, or of the one that it will train. Raises RecipeError for a kind of
    network of which no smaller one is known."""
    if recipe.teacher.source == PRETRAIN:
        return foreseen_teacher(recipe.pretrain, load_images(recipe.data), recipe.network)
    teacher = read_teacher(recipe.teacher.source)
    check_reducible(teacher.kind, error=RecipeError)
    folder = teacher.folder
    return read_config(folder), spec_from_json(verified_facts(folder)["spec"], source=str(folder))


def selection(known: Sequence[Candidate], chosen: Candidate) -> list[Candidate]:
    """The teacher's, the chosen one, and around it those that are worth a look, the largest first.

    Not worth one is what has fewer parameters than another in the neighbourhood that has no more modules to run.
    """
    near = [one for one in known[1:] if abs(one.cut - chosen.cut) <= NEIGHBOURHOOD and one != chosen]
    worth = [
        one
        for one in near
        if not any(
            other.num_parameters > one.num_parameters and other.num_modules <= one.num_modules
            for other in (*near, chosen)
            if abs(other.cut - one.cut) < NEIGHBOURHOOD / 3
        )
    ]
    nearest = sorted(worth, key=lambda one: abs(one.cut - chosen.cut))[:MOST_NEIGHBOURS]
    return [one for one in known if one in (known[0], chosen) or one in nearest]


def _latency(
    candidate: Candidate, spec: DenoiserSpec, work: Work, device: torch.device, on_batch: Callable[[], None]
) -> dict[str, float | None]:
    """Median milliseconds by batch; None where a request would take too long."""
    with torch.random.fork_rng(devices=[]):
        student = Denoiser(build_unet(candidate.config), spec).to(device).eval()

    @torch.inference_mode()
    def generate(noise: Tensor, labels: Tensor, seeds: Sequence[int]) -> Tensor:
        sigma = torch.full((len(noise),), spec.sigma_max, device=device)
        return student(noise.to(device) * spec.sigma_max, sigma, labels.to(device)).cpu()

    sampler = Sampler("student", generate, 1, candidate.num_parameters)
    feasible = tuple(batch for batch in BATCHES if device.type != "cpu" or batch * work.num_flops <= MOST_FLOPS)
    taken = measure_latency(sampler, spec.noise_shape, spec.num_conditions, feasible, REPEATS, on_batch)
    for _ in range(len(BATCHES) - len(feasible)):
        on_batch()
    return {str(batch): taken.get(str(batch)) for batch in BATCHES}


def _row(candidate: Candidate, work: Work, latency: Mapping[str, float | None], *, is_chosen: bool) -> dict[str, Any]:
    anatomy = read_anatomy(candidate.config)
    return {
        "chosen": is_chosen,
        "widths": list(anatomy.widths),
        "num_blocks": anatomy.num_blocks,
        "num_groups": anatomy.num_groups,
        "attention": _attention(anatomy),
        "num_parameters": candidate.num_parameters,
        "cut": candidate.cut,
        "num_flops": work.num_flops,
        "num_kernels": work.num_kernels,
        "latency_ms": dict(latency),
        "config": candidate.config,
    }


def _attention(anatomy: Anatomy) -> list[str]:
    """Where there is attention: pixels a side of a level (its number, where the configuration leaves the size open)."""
    found = []
    for place, level in enumerate(anatomy.levels):
        if level.attends_down or level.attends_up:
            found.append(f"level {place}" if anatomy.size is None else str(anatomy.size >> place))
    return [*found, *(["middle"] if anatomy.mid_attends else [])]


def _table(value: Mapping[str, Any], width: int) -> Table:
    lines = []
    for place, row in enumerate(value["rows"]):
        style = "bold" if row["chosen"] else ""
        mark = "chosen" if row["chosen"] else "teacher" if place == 0 else ""
        cells = (
            mark,
            "-".join(map(str, row["widths"])),
            str(row["num_blocks"]),
            str(row["num_groups"]),
            ", ".join(row["attention"]),
            f"{row['num_parameters']:,}",
            f"{row['cut']:.1%}",
            f"{row['num_flops'] / 1e6:,.2f}",
            str(row["num_kernels"]),
            *("" if taken is None else f"{taken:.2f}" for taken in row["latency_ms"].values()),
        )
        lines.append([Text(cell, style) for cell in cells])
    title = f"students of {value['teacher']} that save about {value['reduce']:.0%} of its parameters"
    threads = f"{value['latency_threads']} CPU thread{'' if value['latency_threads'] == 1 else 's'}"
    shown = f"{len(lines)} of {value['num_candidates']} configurations: the teacher's, the chosen, and those near it"
    note = f"latency on {value['machine']} with {threads}\n{shown} that have the most parameters for their number of blocks"
    table = fitted(title, COLUMNS, lines, width)
    for line in note.splitlines():
        table = with_note(table, line)
    return table
