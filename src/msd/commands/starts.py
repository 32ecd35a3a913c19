"""What a table says of its rows' starts: measured of what students were before distillation, rebuilt from trainings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from msd.commands.console import Output
from msd.conditions.partition import Partition
from msd.errors import MsdError
from msd.evaluation.kept import Kept, Measurement
from msd.evaluation.samplers import named_solver
from msd.evaluation.starts import StartBench
from msd.fleet.begin import is_whole_teacher, prepared
from msd.fleet.jobs import Job
from msd.reading import clause

if TYPE_CHECKING:
    from msd.commands.evaluate import Table


def measure_starts(table: Table, kept: Kept, output: Output) -> dict[str, dict[str, Any]]:
    """`StartBench.measure` of each row whose students did not begin as copies of the teacher, by its name.

    Of one whose start cannot be rebuilt any more a `note` that says why, and nothing is kept.
    """
    spec = table.teacher.denoiser.spec
    bench = StartBench(table.bench, table.teacher, named_solver(table.recipe.evaluation.teacher[0], spec))
    found: dict[str, dict[str, Any]] = {}
    for name, subject in table.subjects.items():
        trainings = [(folder, Job.load(folder)) for folder in subject.trainings]
        if all(is_whole_teacher(job.training) for _, job in trainings):
            continue
        decided = {"trainings": [job.task.hash for _, job in trainings], "device": torch.device(table.recipe.device).type}
        measurement = Measurement("start", {**decided, **bench.content})
        try:
            found[name] = kept.answer(measurement, partial(_measure, bench, name, trainings, output))
        except MsdError as error:
            output.say(f"the start of {name} is not measured: {error}")
            found[name] = {"note": clause(error)}
    return found


def _measure(bench: StartBench, name: str, trainings: Sequence[tuple[Path, Job]], output: Output) -> dict[str, Any]:
    starts = [prepared(job, job.training, folder, bench.teacher.denoiser) for folder, job in trainings]
    folder, first = trainings[0]
    partition = Partition.from_json(first.training.partition, source=str(folder))
    with output.progress(f"measuring the start of {name}", bench.work) as advance:
        return bench.measure(starts, partition, advance)
