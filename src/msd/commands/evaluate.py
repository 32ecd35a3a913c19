"""`msd eval` and `msd report`: the rows of a run's table, measured with one bench, and the page made from them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from msd import __version__
from msd.cohort.generate import Cohort
from msd.cohort.manifest import MANIFEST, REMEDY, read_manifest
from msd.commands.console import Output
from msd.conditions.partition import Partition, PartitionReport
from msd.data.images import load_images
from msd.diffusion.draw import derived_seed, image_noise
from msd.diffusion.solvers import Solver
from msd.errors import RunError, WeightsError
from msd.evaluation.bench import Bench
from msd.evaluation.latency import LATENCY_THREADS, measure_latency, measure_peak_memory, measure_routing
from msd.evaluation.pictures import Curve
from msd.evaluation.report import ReportInputs, write_report
from msd.evaluation.results import SCHEMA, read_metrics
from msd.evaluation.samplers import Sampler, cohort_sampler, teacher_sampler
from msd.files import write_json
from msd.fleet.jobs import Job, TrainTask, read_status
from msd.fleet.plan import StoredPlan, StoredRow
from msd.reading import Kind, read_kept, set_aside
from msd.recipe import MAIN_ROW, Recipe, restored, revised
from msd.run import Run
from msd.teachers.facts import read_teacher, teacher_folder
from msd.teachers.folder import load_teacher
from msd.training.engine import Engine
from msd.training.records import read_records

NUM_GRID_COLUMNS = 6
MEMORY_BATCH = 256
ROUTED_BATCH = 16
TEACHER_SOLVERS: tuple[tuple[Literal["heun", "euler"], int], ...] = (("heun", 18), ("euler", 4), ("euler", 1))
"""The teacher's rows: the reference first, then what a user in a hurry would otherwise pick."""


def open_bench(recipe: Recipe, cohort: Cohort) -> Bench:
    return Bench(load_images(recipe.data.name), cohort.partition, recipe.evaluation, cohort.noise_shape)


def teacher_rows(recipe: Recipe, cohort: Cohort) -> list[tuple[Sampler, dict[str, Any]]]:
    """The cohort's teacher, sampled in each way, with what each row says of itself. Raises WeightsError for another one."""
    loaded = load_teacher(recipe.teacher.source, Engine.on(recipe.device).device)
    theirs = cohort.manifest.facts["teacher"]["hash"]
    if loaded.hash != theirs:
        raise WeightsError(
            f"{recipe.teacher.source} is another teacher ({loaded.hash[:12]}) than this cohort was distilled from "
            f"({theirs[:12]}); put that one back, or distill again."
        )
    teacher = loaded.denoiser
    found = []
    for method, steps in TEACHER_SOLVERS:
        solver = Solver(method, steps, teacher.spec.sigma_min, teacher.spec.sigma_max)
        note = f"{steps} {method.title()} step{'' if steps == 1 else 's'}"
        sampler = teacher_sampler(f"teacher-{solver.name}", teacher, solver)
        found.append((sampler, {"kind": "teacher", "note": note, "equal": None}))
    return found


def cohorts_of(run: Run) -> dict[str, tuple[StoredRow, Cohort]]:
    """The cohorts that the run has, by row, in the order of the table. Raises RunError when its own is not there."""
    if not (run.cohort / MANIFEST).exists():
        raise RunError(f"{run.folder} has no cohort yet; run `msd distill` (or `msd demo`) first.")
    device, found = Engine.on(run.recipe.device).device, {}
    for row in StoredPlan.load(run.plan).rows:
        folder = run.cohort if row.is_main else run.row(row.name)
        if (folder / MANIFEST).exists():
            found[row.name] = (row, Cohort.load(folder, device))
    return found


def measure_rows(bench: Bench, samplers: Sequence[Sampler], output: Output) -> dict[str, dict[str, Any]]:
    """Quality of each sampler on the same noise and labels, then the clock for all of them."""
    rows = {}
    for sampler in samplers:
        with output.progress(f"measuring {sampler.name}", bench.settings.num_samples) as advance:
            rows[sampler.name] = bench.row(sampler, advance)
    settings, noise_shape = bench.settings, tuple(bench.inputs[0].shape[1:])
    with output.progress("timing", len(samplers)) as advance:
        for sampler in samplers:
            rows[sampler.name]["latency_ms"] = measure_latency(
                sampler, noise_shape, bench.images.num_conditions, settings.latency_batches, settings.latency_repeats
            )
            advance(1)
    return rows


def evaluate_cohort(folder: Path, recipe: Recipe, out: Path, output: Output) -> dict[str, Any]:
    """Measure one cohort beside its teacher's reference sampler, as `recipe` says; saved as `out`."""
    cohort = Cohort.load(folder, Engine.on(recipe.device).device)
    bench = open_bench(recipe, cohort)
    reference, facts = teacher_rows(recipe, cohort)[0]
    note = "one student" if cohort.num_students == 1 else f"{cohort.num_students} students, routed"
    said = {reference.name: facts, MAIN_ROW: {"kind": "students", "note": note, "equal": None}}
    said[MAIN_ROW]["num_students"] = cohort.num_students
    measured = measure_rows(bench, [reference, cohort_sampler(MAIN_ROW, cohort)], output)
    metrics = _metrics(recipe, bench, reference.name, said, measured, cohort)
    write_json(out, metrics)
    return metrics


def cohort_recipe(folder: Path, overrides: list[str] | None, seed: int | None, device: str | None) -> Recipe:
    """The recipe a cohort was made by, with changes; `seed` is that of the evaluation's noise and labels."""
    kind = Kind("a cohort's manifest", REMEDY, WeightsError)
    stored = restored(read_manifest(folder).facts["recipe"], kind, source=str(folder / MANIFEST)).model_dump(mode="json")
    chosen = [*(overrides or []), *([f"evaluation.seed={seed}"] if seed is not None else [])]
    return revised(stored, chosen, allowed=("evaluation",), device=device)


def evaluate_run(run: Run, output: Output) -> dict[str, Any]:
    """Every row of a run: teacher three ways, then the cohorts it has. Raises RunError when its own is not there."""
    recipe, cohorts = run.recipe, cohorts_of(run)
    cohort = cohorts[MAIN_ROW][1]
    teachers = teacher_rows(recipe, cohort)
    reference = teachers[0][0].name
    bench = open_bench(recipe, cohort)
    students = [cohort_sampler(name, one) for name, (_, one) in cohorts.items()]
    rows = measure_rows(bench, [*(sampler for sampler, _ in teachers), *students], output)
    with output.progress("peak memory", 2) as advance:
        folder, solver = teacher_folder(recipe.teacher.source), Solver(*TEACHER_SOLVERS[0])
        rows[reference]["peak_memory_mib"] = measure_peak_memory(folder, solver, MEMORY_BATCH, LATENCY_THREADS)
        advance(1)
        student = cohort.manifest.student(0)
        rows[MAIN_ROW]["peak_memory_mib"] = measure_peak_memory(student, None, MEMORY_BATCH, LATENCY_THREADS)
        advance(1)
    said = {sampler.name: facts for sampler, facts in teachers}
    said |= {name: training_facts(run, row) for name, (row, _) in cohorts.items()}
    return _metrics(recipe, bench, reference, said, rows, cohort)


def _metrics(
    recipe: Recipe,
    bench: Bench,
    reference: str,
    said: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, Any]],
    cohort: Cohort,
) -> dict[str, Any]:
    """The content of metrics.json: what each row says of itself, and what was measured of it."""
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": recipe.device,
        "num_threads": torch.get_num_threads(),
        "latency_threads": LATENCY_THREADS,
        "floor": bench.floor(),
        "reference": reference,
        "main": MAIN_ROW,
        "rows": {name: {**said[name], **row} for name, row in measured.items()},
        "routing_ms": {str(ROUTED_BATCH): measure_routing(cohort, ROUTED_BATCH)},
    }


def training_facts(run: Run, row: StoredRow) -> dict[str, Any]:
    """Updates and images of a row, and its training time summed over its students and by the clock."""
    jobs = [Job.load(run.jobs / key) for key in row.jobs]
    statuses = [read_status(run.jobs / key) for key in row.jobs]
    timed = all(status.started for status in statuses)  # else a status was lost, and with it how long it took
    tasks = [job.task for job in jobs if isinstance(job.task, TrainTask)]
    stages = [stage.settings for stage in tasks[0].stages]
    updates, images = (
        sum(stage["num_updates"] for stage in stages),
        sum(stage["num_updates"] * stage["batch_size"] for stage in stages),
    )
    return {
        "kind": "students",
        "note": row.note,
        "equal": row.equal,
        "num_students": len(jobs),
        "num_updates": updates,
        "batch_size": stages[-1]["batch_size"],
        "total_updates": updates * len(jobs),
        "total_images": images * len(jobs),
        "training_seconds": round(sum(status.seconds for status in statuses), 1) if timed else None,
        "training_wall_seconds": round(
            max(status.updated for status in statuses) - min(status.started for status in statuses), 1
        )
        if timed
        else None,
    }


def curves_of(run: Run) -> list[Curve]:
    """The records of every training of the run, each once."""
    found: dict[str, Curve] = {}
    for row in StoredPlan.load(run.plan).rows:
        for part, key in enumerate(row.jobs):
            for path in sorted((run.jobs / key).glob("stages/*/records.jsonl")):
                own = part if len(row.jobs) > 1 else None
                found.setdefault(str(path), Curve(key.rpartition("-")[0], row.name, own, read_records(path)))
    return list(found.values())


def grids(run: Run) -> dict[str, Tensor]:
    """A few images of every class from each sampler, all from the same noise."""
    cohorts = cohorts_of(run)
    main = cohorts[MAIN_ROW][1]
    labels = torch.arange(main.partition.num_conditions).repeat_interleave(NUM_GRID_COLUMNS)
    noise = image_noise([derived_seed("grid", index) for index in range(len(labels))], main.noise_shape)
    result = {sampler.name: sampler.generate(noise, labels) for sampler, _ in teacher_rows(run.recipe, main)}
    return result | {name: cohort.generate(labels, noise=noise) for name, (_, cohort) in cohorts.items()}


def make_report(run: Run, output: Output, metrics: dict[str, Any] | None = None, folder: Path | None = None) -> Path:
    """Write the run's page from `metrics` (by default those of the last evaluation; measured now if there are none)."""
    if metrics is None:
        metrics = _last_metrics(run, output)
    timings = run.timings()
    metrics.setdefault("wall_seconds", round(sum(timings.values()), 1))
    inputs = ReportInputs(
        metrics=metrics,
        recipe=run.recipe.model_dump(mode="json"),
        partition_report=partition_report(run),
        curves=curves_of(run),
        grids=grids(run),
        num_grid_columns=NUM_GRID_COLUMNS,
        timings=timings,
        versions=versions(),
    )
    return write_report(folder or run.report, inputs)


def partition_report(run: Run) -> dict[str, Any]:
    """The report of the run's partition, made again from partition and teacher where there is none or a broken one."""
    kept = read_kept(run.partition_report, PartitionReport, "a partition's report", None)
    if kept is not None:
        return kept.model_dump(mode="json")
    return Partition.load(run.partition).report(read_teacher(run.recipe.teacher.source).embeddings())


def _last_metrics(run: Run, output: Output) -> dict[str, Any]:
    if os.path.lexists(run.metrics):
        try:
            return read_metrics(run.metrics)
        except RunError as error:  # what was measured can be measured again
            set_aside(run.metrics, error)
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
