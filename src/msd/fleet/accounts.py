"""What a row's students took: updates, images and time, theirs and of what they started from. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msd.fleet.jobs import START, Job, TrainTask, read_status, student_folder
from msd.fleet.stored import StoredRow
from msd.networks.facts import WEIGHTS, read_facts
from msd.recipe import RANDOM, TEACHER


def account(jobs: Path, row: StoredRow) -> dict[str, Any]:
    """A row's updates and images, and its training time summed over its trainings and by the clock.

    `num_updates` are one student's, with those of what it started from; the totals count a training that several students
    start from once. A stage that ended early counts as long as it was. Raises RunError and WeightsError.
    """
    chains = [tuple(chain(jobs, key)) for key in row.jobs]
    trained = {job.key: job for one in chains for job in one}
    updates = {key: [one["num_updates"] for one in _stages(jobs / key)] for key in trained}
    images = {
        key: sum(num * stage.settings["batch_size"] for num, stage in zip(updates[key], _task(job).stages, strict=True))
        for key, job in trained.items()
    }
    statuses = [read_status(jobs / key) for key in trained]
    timed = all(status.started for status in statuses)  # else a status was lost, and with it how long it took
    first = chains[0]
    own = _task(first[-1])
    return {
        "kind": "students",
        "note": row.note,
        "equal": row.equal,
        "num_students": len(row.jobs),
        "stages": [
            {"stage": stage.name, "num_updates": num, "batch_size": stage.settings["batch_size"]}
            for job in first
            for num, stage in zip(updates[job.key], _task(job).stages, strict=True)
        ],
        "start": _begin(first),
        "num_updates": sum(sum(updates[job.key]) for job in first),
        "batch_size": own.stages[-1].settings["batch_size"],
        "total_updates": sum(map(sum, updates.values())),
        "total_images": sum(images.values()),
        "cohort_bytes": sum((student_folder(jobs / key) / WEIGHTS).stat().st_size for key in row.jobs),
        "training_seconds": round(sum(status.seconds for status in statuses), 1) if timed else None,
        "training_wall_seconds": _wall(statuses) if timed else None,
    }


def chain(jobs: Path, key: str) -> Iterable[Job]:
    """The training of a student and those that it started from, the earliest first."""
    job = Job.load(jobs / key)
    if START in job.needs:
        yield from chain(jobs, job.needs[START])
    yield job


def _begin(trainings: tuple[Job, ...]) -> str:
    """What the student began as, in a word: `random`, `teacher`, another job's name, or a saved one."""
    if _task(trainings[-1]).weights == RANDOM:
        return RANDOM
    if trainings[-1].start is not None:
        return "a saved student"
    return trainings[-2].name if len(trainings) > 1 else TEACHER


def _task(job: Job) -> TrainTask:
    assert isinstance(job.task, TrainTask)  # students are trained
    return job.task


def _stages(folder: Path) -> list[dict[str, Any]]:
    """What was really done, stage by stage."""
    return read_facts(student_folder(folder))["stages"]


def _wall(statuses: list[Any]) -> float:
    return round(max(status.updated for status in statuses) - min(status.started for status in statuses), 1)
