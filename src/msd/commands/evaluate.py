"""`msd eval` and `msd report`: the rows of a run's table, measured with one bench, and the page made from them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from msd import __version__
from msd.cohort.generate import Cohort
from msd.cohort.manifest import read_manifest
from msd.commands.console import Output
from msd.commands.distill import baseline_jobs, student_jobs
from msd.conditions.partition import Partition
from msd.data.images import load_images
from msd.diffusion.solvers import Solver
from msd.errors import RunError
from msd.evaluation.bench import Bench
from msd.evaluation.latency import LATENCY_THREADS, measure_latency, measure_peak_memory, measure_routing
from msd.evaluation.pictures import Curve
from msd.evaluation.report import ReportInputs, write_report
from msd.evaluation.results import SCHEMA, read_metrics
from msd.evaluation.samplers import Sampler, cohort_sampler, teacher_sampler
from msd.files import read_json, write_json
from msd.fleet.jobs import Job, read_status
from msd.recipe import Recipe, revised
from msd.run import Run
from msd.teachers.facts import teacher_folder
from msd.teachers.folder import load_teacher
from msd.training.engine import Engine
from msd.training.records import read_records

NUM_GRID_COLUMNS = 6
MEMORY_BATCH = 256
TEACHER_SOLVERS: tuple[tuple[Literal["heun", "euler"], int], ...] = (("heun", 18), ("euler", 4), ("euler", 1))
"""The teacher's rows: the reference, and what a user in a hurry would otherwise pick."""


def open_bench(recipe: Recipe, partition: Partition) -> Bench:
    return Bench(load_images(recipe.data.name), partition, recipe.evaluation)


def teacher_samplers(recipe: Recipe) -> list[Sampler]:
    teacher = load_teacher(recipe.teacher.source, Engine.on(recipe.device).device).denoiser
    spec = teacher.spec
    solvers = [Solver(method, steps, spec.sigma_min, spec.sigma_max) for method, steps in TEACHER_SOLVERS]
    return [teacher_sampler(f"teacher-{solver.name}", teacher, solver) for solver in solvers]


def teacher_facts() -> dict[str, dict[str, Any]]:
    """What the teacher's rows say of themselves, by name."""
    return {
        f"teacher-{method}{steps}": {
            "kind": "teacher",
            "note": f"{steps} {method.title()} step{'' if steps == 1 else 's'}",
            "equal": None,
        }
        for method, steps in TEACHER_SOLVERS
    }


def students_facts(num_students: int, equal: str | None) -> dict[str, Any]:
    note = "one student" if num_students == 1 else f"{num_students} students, routed"
    return {"kind": "students", "note": note, "equal": equal, "num_students": num_students}


def measure_rows(bench: Bench, samplers: Sequence[Sampler], output: Output) -> dict[str, dict[str, Any]]:
    """Quality of each sampler on the same noise and labels, then the clock for all of them."""
    rows = {}
    for sampler in samplers:
        with output.progress(f"measuring {sampler.name}", bench.settings.num_samples) as advance:
            rows[sampler.name] = bench.row(sampler, advance)
    settings, images = bench.settings, bench.images
    with output.progress("timing", len(samplers)) as advance:
        for sampler in samplers:
            rows[sampler.name]["latency_ms"] = measure_latency(
                sampler, images.pixel_shape, images.num_conditions, settings.latency_batches, settings.latency_repeats
            )
            advance(1)
    return rows


def evaluate_cohort(folder: Path, recipe: Recipe, out: Path, output: Output) -> dict[str, Any]:
    """Measure one cohort beside its teacher's reference sampler, as `recipe` says; saved as `out`."""
    cohort = Cohort.load(folder, Engine.on(recipe.device).device)
    bench = open_bench(recipe, cohort.partition)
    samplers = [teacher_samplers(recipe)[0], cohort_sampler("cohort", cohort)]
    facts = teacher_facts() | {"cohort": students_facts(cohort.num_students, None)}
    metrics = _header(recipe, bench) | {
        "reference": samplers[0].name,
        "main": "cohort",
        "rows": {name: facts[name] | row for name, row in measure_rows(bench, samplers, output).items()},
        "routing_ms": {"16": measure_routing(cohort)},
    }
    write_json(out, metrics)
    return metrics


def cohort_recipe(folder: Path, overrides: list[str] | None, seed: int | None, device: str | None) -> Recipe:
    """The recipe a cohort was made by, with changes; `seed` is that of the evaluation's noise and labels."""
    stored = read_manifest(folder).facts["recipe"]
    chosen = [*(overrides or []), *([f"evaluation.seed={seed}"] if seed is not None else [])]
    return revised(stored, chosen, allowed=("evaluation",), device=device)


def evaluate_run(run: Run, output: Output) -> dict[str, Any]:
    """Every row of a run: teacher three ways, the single students it has, the cohort. Raises RunError without a cohort."""
    if not (run.cohort / "cohort.json").exists():
        raise RunError(f"{run.folder} has no cohort yet; run `msd distill` (or `msd demo`) first.")
    recipe = run.recipe
    device = Engine.on(recipe.device).device
    cohort = Cohort.load(run.cohort, device)
    bench = open_bench(recipe, cohort.partition)
    samplers = teacher_samplers(recipe)
    reference = samplers[0].name
    for name in recipe.rows:
        if (run.baseline(name) / "cohort.json").exists():
            samplers.append(cohort_sampler(name, Cohort.load(run.baseline(name), device)))
    samplers.append(cohort_sampler("cohort", cohort))
    rows = measure_rows(bench, samplers, output)
    with output.progress("peak memory", 2) as advance:
        rows[reference]["peak_memory_mib"] = measure_peak_memory(
            teacher_folder(recipe.teacher.source), Solver(*TEACHER_SOLVERS[0]), MEMORY_BATCH, LATENCY_THREADS
        )
        advance(1)
        rows["cohort"]["peak_memory_mib"] = measure_peak_memory(
            cohort.manifest.student(0), None, MEMORY_BATCH, LATENCY_THREADS
        )
        advance(1)
    facts = teacher_facts() | _training_facts(run, cohort.partition)
    return _header(recipe, bench) | {
        "reference": reference,
        "main": "cohort",
        "rows": {name: facts[name] | row for name, row in rows.items()},
        "routing_ms": {"16": measure_routing(cohort)},
    }


def _header(recipe: Recipe, bench: Bench) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": recipe.device,
        "num_threads": torch.get_num_threads(),
        "latency_threads": LATENCY_THREADS,
        "floor": bench.floor(),
    }


def _training_facts(run: Run, partition: Partition) -> dict[str, dict[str, Any]]:
    """Kind, updates (per student and in total) and training time of each distilled row, summed over students and by the
    clock."""

    def facts(jobs: Sequence[Job], equal: str | None) -> dict[str, Any]:
        updates, batch_size = jobs[0].settings.num_updates, jobs[0].settings.batch_size
        statuses = [read_status(job.folder) for job in jobs]
        return {
            **students_facts(len(jobs), equal),
            "num_updates": updates,
            "batch_size": batch_size,
            "total_updates": updates * len(jobs),
            "total_images": updates * len(jobs) * batch_size,
            "training_seconds": round(sum(status.seconds for status in statuses), 1),
            "training_wall_seconds": round(
                max(status.updated for status in statuses) - min(status.started for status in statuses), 1
            ),
        }

    baselines = {
        job.name: facts(
            [job], "total-updates" if job.settings.num_updates > run.recipe.dm.num_updates else "updates-per-student"
        )
        for job in baseline_jobs(run, partition)
    }
    return baselines | {"cohort": facts(student_jobs(run, partition), None)}


def _curves(run: Run) -> list[Curve]:
    partition = Cohort.load(run.cohort).partition
    rows = [("cohort", student_jobs(run, partition)), *((job.name, [job]) for job in baseline_jobs(run, partition))]
    return [Curve(job.name, name, job.part, read_records(job.records)) for name, jobs in rows for job in jobs]


def grids(run: Run) -> dict[str, Tensor]:
    """A few images of every class from each sampler, all from the same noise."""
    cohort = Cohort.load(run.cohort)
    num = cohort.partition.num_conditions
    labels = torch.arange(num).repeat_interleave(NUM_GRID_COLUMNS)
    noise = torch.randn(len(labels), *cohort.noise_shape, generator=torch.Generator().manual_seed(7))
    result = {sampler.name: sampler.generate(noise, labels) for sampler in teacher_samplers(run.recipe)}
    for name in run.recipe.rows:
        if (run.baseline(name) / "cohort.json").exists():
            result[name] = Cohort.load(run.baseline(name)).generate(labels, noise=noise)
    return result | {"cohort": cohort.generate(labels, noise=noise)}


def make_report(run: Run, output: Output, metrics: dict[str, Any] | None = None, folder: Path | None = None) -> Path:
    """Write the run's page from `metrics` (by default those of the last evaluation; measured now if there are none)."""
    if metrics is None:
        metrics = _last_metrics(run, output)
    timings = run.timings()
    metrics.setdefault("wall_seconds", round(sum(timings.values()), 1))
    inputs = ReportInputs(
        metrics=metrics,
        recipe=run.recipe.model_dump(mode="json"),
        partition_report=read_json(run.partition_report, what="a partition's report"),
        curves=_curves(run),
        grids=grids(run),
        num_grid_columns=NUM_GRID_COLUMNS,
        timings=timings,
        versions=versions(),
    )
    return write_report(folder or run.report, inputs)


def _last_metrics(run: Run, output: Output) -> dict[str, Any]:
    if run.metrics.exists():
        return read_metrics(run.metrics)
    with run.timed("evaluate"):
        return evaluate_run(run, output)


def versions() -> dict[str, str]:
    packages = ("torch", "diffusers", "torchmetrics", "numpy")
    return {
        "msd": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
    }
