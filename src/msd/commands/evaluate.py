"""`msd eval`, and the evaluation of a run: the rows of its table, measured with one bench, each once for its content."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from msd.cohort.generate import Cohort
from msd.cohort.manifest import MANIFEST, REMEDY, Manifest, read_manifest
from msd.commands.console import Output
from msd.commands.starts import measure_starts
from msd.conditions.partition import Partition
from msd.data.images import load_images
from msd.diffusion.solvers import Solver
from msd.errors import RunError, WeightsError
from msd.evaluation.bench import Bench
from msd.evaluation.kept import Kept, Measurement
from msd.evaluation.latency import LATENCY_THREADS, machine, measure_latency, measure_peak_memory, measure_routing
from msd.evaluation.results import SCHEMA
from msd.evaluation.samplers import Sampler, cohort_sampler, named_solver, teacher_sampler
from msd.files import write_json
from msd.fleet.accounts import account
from msd.fleet.stored import StoredPlan, StoredRow
from msd.networks.facts import identity, verified_facts
from msd.reading import Kind
from msd.recipe import DATA, MAIN_ROW, PRETRAIN, Recipe, read_solver_word, restored, revised
from msd.run import COHORT, EVALUATIONS, RECIPE, ROWS, Run
from msd.teachers.facts import read_teacher
from msd.teachers.folder import Teacher, load_teacher
from msd.training.engine import Engine

MEMORY_BATCH = 256
ROUTED_BATCH = 16


@dataclass(frozen=True)
class Subject:
    """A row to be measured: how it makes images, the content that decides them, and what it says of itself."""

    sampler: Sampler
    content: dict[str, Any]
    said: dict[str, Any]
    trainings: tuple[Path, ...] = ()
    """Where its students were trained, in the order of their parts: the folders of their jobs."""


@dataclass(frozen=True)
class Table:
    """All that a table measures: its subjects by name, the reference first, with one bench."""

    recipe: Recipe
    bench: Bench
    main: Cohort
    teacher: Teacher
    subjects: dict[str, Subject]

    @property
    def reference(self) -> str:
        return next(iter(self.subjects))

    def quality(self, name: str) -> Measurement:
        return quality_of(self.subjects[name], self.bench, self.recipe.device)


def quality_of(subject: Subject, bench: Bench, device: str) -> Measurement:
    """What decides a row's distances: they are the same for whoever asks."""
    return Measurement("quality", {"row": subject.content, "device": torch.device(device).type, **bench.content})


def table_of(run: Run) -> Table:
    """The teacher's rows, then the cohorts that the run has. Raises RunError when its own is not there."""
    cohorts = cohorts_of(run)
    main = cohorts[MAIN_ROW][1]
    recipe = run.resolved
    teacher = _teacher_of(recipe, main)
    subjects = teacher_subjects(teacher, recipe)
    for name, (row, cohort) in cohorts.items():
        content, trainings = cohort_content(cohort.manifest), tuple(run.jobs / key for key in row.jobs)
        subjects[name] = Subject(cohort_sampler(name, cohort), content, account(run.jobs, row), trainings)
    return Table(recipe, open_bench(recipe, main, run.folder), main, teacher, subjects)


def open_bench(recipe: Recipe, cohort: Cohort, run_folder: Path | None = None) -> Bench:
    """What rows are measured with. The images are read only if something is measured to them.

    Raises DataError and WeightsError for a reference or a feature network that is missing or does not fit.
    """
    settings = recipe.evaluation
    images = load_images(recipe.data) if settings.reference == DATA or settings.also else None
    device = Engine.on(recipe.device).device
    return Bench(images, cohort.partition, settings, cohort.noise_shape, run_folder, cohort.pixel_shape, device)


def check_measurable(run: Run) -> None:
    """Hours before there is anything to measure: raises what measuring would, as far as images and teacher tell it."""
    recipe, settings = run.recipe, run.recipe.evaluation
    own = recipe.teacher.source == PRETRAIN  # it will make what it is trained on
    images = load_images(recipe.data) if own or settings.reference == DATA or settings.also else None
    num = images.num_conditions if own and images else read_teacher(recipe.teacher.source).num_conditions
    Bench(images, Partition.whole((1 / num,) * num), settings, run_folder=run.folder)


def teacher_subjects(teacher: Teacher, recipe: Recipe) -> dict[str, Subject]:
    """A teacher, sampled in each way that `evaluation.teacher` names: the reference first."""
    found = {}
    for word in recipe.evaluation.teacher:
        solver = named_solver(word, teacher.denoiser.spec)
        sampler = teacher_sampler(teacher.denoiser, solver)
        content = {"teacher": teacher.hash, "solver": asdict(solver)}
        said = {"kind": "teacher", "note": solver.description, "equal": None}
        found[sampler.name] = Subject(sampler, content, said)
    return found


def cohort_content(manifest: Manifest) -> dict[str, Any]:
    """What decides a cohort's images, by its files as they are now. Raises WeightsError for a damaged student."""
    students = [identity(verified_facts(manifest.student(part))) for part in range(manifest.partition.num_parts)]
    return {"students": students, "partition": manifest.partition.hash}


def _teacher_of(recipe: Recipe, cohort: Cohort) -> Teacher:
    """The teacher that the cohort was distilled from. Raises WeightsError when the recipe's is another one by now."""
    loaded = load_teacher(recipe.teacher.source, Engine.on(recipe.device).device, recipe.teacher.guidance)
    theirs = cohort.manifest.facts["teacher"]["hash"]
    if loaded.hash != theirs:
        raise WeightsError(
            f"{recipe.teacher.source} is another teacher ({loaded.hash[:12]}) than this cohort was distilled from "
            f"({theirs[:12]}); put that one back, or distill again."
        )
    return loaded


def cohorts_of(run: Run) -> dict[str, tuple[StoredRow, Cohort]]:
    """The cohorts that the run has, by row, in the order of the table. Raises RunError when its own is not there."""
    if not os.path.lexists(run.cohort / MANIFEST):
        raise RunError(f"{run.folder} has no cohort yet; run `msd distill` (or `msd demo`) first.")
    device, found = Engine.on(run.recipe.device).device, {}
    for row in StoredPlan.load(run.plan).rows:
        folder = run.cohort if row.is_main else run.row(row.name)
        if os.path.lexists(folder / MANIFEST):
            found[row.name] = (row, Cohort.load(folder, device))
    return found


def evaluate_cohort(folder: Path, recipe: Recipe, out: Path, output: Output) -> dict[str, Any]:
    """Measure one cohort beside its teacher's reference sampler, as `recipe` says; saved as `out`."""
    cohort = Cohort.load(folder, Engine.on(recipe.device).device)
    teacher = _teacher_of(recipe, cohort)
    reference, subject = next(iter(teacher_subjects(teacher, recipe).items()))
    note = "one student" if cohort.num_students == 1 else f"{cohort.num_students} students, routed"
    said = {"kind": "students", "note": note, "equal": None, "num_students": cohort.num_students}
    main = Subject(cohort_sampler(MAIN_ROW, cohort), cohort_content(cohort.manifest), said)
    table = Table(recipe, open_bench(recipe, cohort, run_of(folder)), cohort, teacher, {reference: subject, MAIN_ROW: main})
    kept = Kept(evaluations_of(folder), output.say)
    metrics = {**_measure(table, kept, output), "seconds": {"evaluation": round(kept.seconds, 1)}}
    write_json(out, metrics)
    return metrics


def evaluations_of(cohort: Path) -> Path | None:
    """Where measurements of a cohort are kept: in the run that it lies in; None outside any."""
    run = run_of(cohort)
    return run / EVALUATIONS if run else None


def run_of(cohort: Path) -> Path | None:
    """The run that a cohort lies in, as its own or a row's; None outside any."""
    place = cohort.absolute()
    run = place.parent if place.name == COHORT else place.parent.parent if place.parent.name == ROWS else None
    return run if run and (run / RECIPE).is_file() else None


def cohort_recipe(folder: Path, overrides: list[str] | None, seed: int | None, device: str | None) -> Recipe:
    """The recipe a cohort was made by, with changes; `seed` is that of the evaluation's noise and labels."""
    kind = Kind("a cohort's manifest", REMEDY, WeightsError)
    stored = restored(read_manifest(folder).facts["recipe"], kind, source=str(folder / MANIFEST)).model_dump(mode="json")
    chosen = [*(overrides or []), *([f"evaluation.seed={seed}"] if seed is not None else [])]
    return revised(stored, chosen, allowed=("evaluation",), device=device)


def evaluate_run(run: Run, table: Table, output: Output) -> dict[str, Any]:
    """The content of a run's metrics.json: every row, measured now or kept, and what the run took."""
    kept = Kept(run.evaluations, output.say)
    metrics, recipe = _measure(table, kept, output), table.recipe
    solver = Solver(*read_solver_word(recipe.evaluation.teacher[0]))
    places = {table.reference: (table.teacher.facts.folder, solver), MAIN_ROW: (table.main.manifest.student(0), None)}
    for name, (folder, solver) in places.items():
        decided = {"denoiser": identity(verified_facts(folder)), "solver": asdict(solver) if solver else None}
        memory = Measurement("memory", {**decided, "batch": MEMORY_BATCH, **_clock("cpu")})
        metrics["rows"][name]["peak_memory_mib"] = kept.answer(memory, partial(_memory, folder, solver, output))
    for name, start in measure_starts(table, kept, output).items():
        metrics["rows"][name]["start_quality"] = start
    metrics["seconds"] = {**run.timings(), "evaluation": round(kept.seconds, 1)}
    metrics["wall_seconds"] = round(sum(metrics["seconds"].values()), 1)
    return metrics


def _measure(table: Table, kept: Kept, output: Output) -> dict[str, Any]:
    """The content of metrics.json: what each row says of itself, and what was measured of it."""
    recipe, bench, rows = table.recipe, table.bench, {}
    for name, subject in table.subjects.items():
        quality = table.quality(name)
        measured = kept.answer(quality, partial(_quality, bench, subject.sampler, output))
        rows[name] = {**subject.said, **measured, "evaluation": quality.key}
    clock = _clock(recipe.device)
    for name, subject in table.subjects.items():
        settings = {"batches": recipe.evaluation.latency_batches, "repeats": recipe.evaluation.latency_repeats}
        content = {"row": subject.content, "noise_shape": bench.sample_shape, **settings, **clock}
        timed = partial(_latency, bench, subject.sampler, output)
        rows[name] |= {"latency_ms": kept.answer(Measurement("latency", content), timed), "latency_taken_on": clock}
    routing = Measurement("routing", {"partition": table.main.partition.hash, "batch": ROUTED_BATCH, **_clock("cpu")})
    floor = Measurement("floor", {name: bench.content[name] for name in bench.FLOOR})
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "device": recipe.device,
        "num_threads": torch.get_num_threads(),
        "latency_threads": LATENCY_THREADS,
        "floor": kept.answer(floor, bench.floor),
        "reference": table.reference,
        "main": MAIN_ROW,
        "classes": list(table.main.classes),
        "rows": rows,
        "routing_ms": {str(ROUTED_BATCH): kept.answer(routing, partial(measure_routing, table.main, ROUTED_BATCH))},
    }


def _quality(bench: Bench, sampler: Sampler, output: Output) -> dict[str, Any]:
    if num := bench.num_unseen:
        with output.progress("looking at the real images", num) as advance:
            bench.look(advance)
    with output.progress(f"measuring {sampler.name}", bench.work) as advance:
        return bench.row(sampler, advance)


def _latency(bench: Bench, sampler: Sampler, output: Output) -> dict[str, float]:
    settings = bench.settings
    with output.progress(f"timing {sampler.name}", len(settings.latency_batches)) as advance:
        return measure_latency(
            sampler,
            bench.sample_shape,
            bench.num_conditions,
            settings.latency_batches,
            settings.latency_repeats,
            on_batch=lambda: advance(1),
        )


def _memory(folder: Path, solver: Solver | None, output: Output) -> float | None:
    with output.progress("peak memory", 1) as advance:
        found = measure_peak_memory(folder, solver, MEMORY_BATCH, LATENCY_THREADS)
        advance(1)
    return found


def _clock(device: str) -> dict[str, Any]:
    """On what a time or a size in memory was taken: it says nothing about another machine."""
    return {"device": device, "threads": LATENCY_THREADS, "machine": machine(device)}


def kept_keys(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """By which measurement of quality each row of a metrics.json stands there."""
    return {name: row.get("evaluation") for name, row in metrics["rows"].items()}
