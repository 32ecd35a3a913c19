"""`msd report`: a run's page, from what was measured of it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd import __version__
from msd.commands.console import Output
from msd.commands.evaluate import Table, evaluate_run, kept_keys, table_of
from msd.conditions.partition import Partition, PartitionReport
from msd.diffusion.draw import derived_seed, image_noise
from msd.errors import MsdError
from msd.evaluation.kept import Kept, Measurement
from msd.evaluation.pictures import Curve
from msd.evaluation.report import METRICS, PAGE, TEMPLATES, ReportInputs, write_report
from msd.evaluation.results import read_metrics
from msd.files import sha256_file, sha256_json, write_json
from msd.fleet.accounts import chain
from msd.fleet.jobs import read_status
from msd.fleet.stored import StoredPlan
from msd.reading import read_kept
from msd.run import Run
from msd.teachers.facts import read_teacher
from msd.training.records import read_records

NUM_GRID_COLUMNS = 6


def report(run: Run, folder: Path, output: Output) -> Path:
    """The page of the run's last evaluation; what changed since then, or was never measured, is measured first."""
    table = table_of(run)
    return make_report(run, table, last_metrics(run, table, output), folder, output)


def make_report(run: Run, table: Table, metrics: dict[str, Any], folder: Path, output: Output) -> Path:
    """Write `metrics` and the page that shows them into `folder`, unless this very page is there. Raises RunError."""
    recipe, partition, curves = run.recipe.model_dump(mode="json"), partition_report(run), curves_of(run)

    def draw() -> str:
        inputs = ReportInputs(metrics, recipe, partition, curves, grids(table), NUM_GRID_COLUMNS, versions())
        return sha256_file(write_report(folder, inputs))

    content = {
        "shown": [metrics, recipe, partition, versions(), *map(sha256_file, TEMPLATES)],
        "images": {name: subject.content for name, subject in table.subjects.items()},
        "curves": [asdict(curve) for curve in curves],
    }
    drawn = Kept(run.evaluations, output.say).answer(Measurement("page", {"content": sha256_json(content)}), draw)
    page = folder / PAGE
    if not page.is_file() or sha256_file(page) != drawn:
        draw()
    write_json(folder / METRICS, metrics)
    return page


def partition_report(run: Run) -> dict[str, Any]:
    """The report of the run's partition, made again from partition and teacher where there is none or a broken one."""
    kept = read_kept(run.partition_report, PartitionReport, "a partition's report", None)
    if kept is not None:
        return kept.model_dump(mode="json")
    teacher = read_teacher(run.resolved.teacher.source, run.resolved.teacher.guidance)
    return Partition.load(run.partition).report(teacher.embeddings(), teacher.classes)


def last_metrics(run: Run, table: Table, output: Output) -> dict[str, Any]:
    """What stands in the run's metrics.json while that is about the table as it is now; else it is evaluated again."""
    if os.path.lexists(run.metrics):
        try:
            metrics = read_metrics(run.metrics)
            if kept_keys(metrics) == {name: table.quality(name).key for name in table.subjects}:
                return metrics | {"classes": list(table.main.classes)}
            output.say(f"{run.metrics} is of other students or settings than the run has now; what changed is measured.")
        except (MsdError, KeyError, TypeError, AttributeError) as error:
            output.say(f"{run.metrics} cannot be used ({error}); it is made again from what is kept.")
    return evaluate_run(run, table, output)


def curves_of(run: Run) -> list[Curve]:
    """The records of every training of the run, its stages one after the other: each once, named after the first row and
    part that its job is of."""
    found: dict[str, Curve] = {}
    for row in StoredPlan.load(run.plan).rows:
        for part, key in enumerate(row.jobs):
            for job in chain(run.jobs, key):
                shown = part if len(row.jobs) > 1 and job.key == key else None  # what all start from is no part's
                place = run.jobs / job.key
                warnings = tuple(read_status(place).warnings)
                found.setdefault(job.key, Curve(job.name, row.name, shown, _records(place), warnings))
    return list(found.values())


def _records(job: Path) -> list[dict[str, float]]:
    """A record a step; the steps of a later stage count on from the last of the one before."""
    records: list[dict[str, float]] = []
    for path in sorted(job.glob("stages/*/records.jsonl")):
        before = records[-1]["step"] if records else 0
        records += [record | {"step": before + record["step"]} for record in read_records(path)]
    return records


def grids(table: Table) -> dict[str, Tensor]:
    """A few images of every class from each sampler, all from the same noise."""
    labels = torch.arange(table.main.partition.num_conditions).repeat_interleave(NUM_GRID_COLUMNS)
    seeds = [derived_seed("grid", index) for index in range(len(labels))]
    noise = image_noise(seeds, table.main.noise_shape)
    return {name: subject.sampler.generate(noise, labels, seeds) for name, subject in table.subjects.items()}


def versions() -> dict[str, str]:
    packages = ("torch", "diffusers", "torchmetrics", "numpy")
    return {
        "msd": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "platform": f"{platform.system()} {platform.machine()}",
    }
