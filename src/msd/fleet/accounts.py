"""What a row's students took: updates, images and time, theirs and of the students they came from. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msd.fleet.jobs import PAIRS, START, Job, read_status, student_folder
from msd.fleet.stored import StoredRow
from msd.networks.facts import REMEDY, WEIGHTS, read_facts
from msd.networks.tensors import num_values
from msd.recipe import RANDOM, TEACHER, section_of


def account(jobs: Path, row: StoredRow) -> dict[str, Any]:
    """A row's updates, images and arithmetic, and its training time summed over its trainings and by the clock.

    `num_updates` are one student's, with those of what it started from; the totals count a training that several students
    start from once, and those of the students whose samples were their pairs. A stage that ended early counts as long as it
    was. The sampling of pairs, which rows share, is in none of these.
    `training_flops` is None where a training ended before they were counted. Raises RunError and WeightsError.
    """
    chains = [tuple(chain(jobs, key)) for key in row.jobs]
    trained = {job.key: job for key in row.jobs for job in _behind(jobs, key)}
    stages = {key: _stages(jobs / key) for key in trained}
    updates = {key: [one["num_updates"] for one in told] for key, told in stages.items()}
    flops = [one.get("num_flops") for told in stages.values() for one in told]
    images = {
        key: sum(num * stage.settings["batch_size"] for num, stage in zip(updates[key], job.training.stages, strict=True))
        for key, job in trained.items()
    }
    statuses = [read_status(jobs / key) for key in trained]
    timed = all(status.started for status in statuses)  # else a status was lost, and with it how long it took
    weights = [student_folder(jobs / key) / WEIGHTS for key in row.jobs]
    first = chains[0]
    own, ancestors = first[-1].training, _ancestors(first)
    return {
        "kind": "students",
        "note": row.note,
        "equal": row.equal,
        "num_students": len(row.jobs),
        "stages": [
            {
                "stage": stage.name,
                "num_updates": num,
                "batch_size": stage.settings["batch_size"],
                "own": job not in ancestors,
            }
            for job in first
            for num, stage in zip(updates[job.key], job.training.stages, strict=True)
        ],
        "lineage": descent(first),
        "num_updates": sum(sum(updates[job.key]) for job in first),
        "batch_size": own.stages[-1].settings["batch_size"],
        "total_updates": sum(map(sum, updates.values())),
        "total_images": sum(images.values()),
        "training_flops": None if None in flops else sum(one or 0 for one in flops),
        "cohort_parameters": sum(num_values(path, REMEDY) for path in weights),
        "cohort_bytes": sum(path.stat().st_size for path in weights),
        "training_seconds": round(sum(status.seconds for status in statuses), 1) if timed else None,
        "training_wall_seconds": _wall(statuses) if timed else None,
    }


def chain(jobs: Path, key: str) -> Iterable[Job]:
    """The training of a student and those that it started from, the earliest first."""
    job = Job.load(jobs / key)
    if START in job.needs:
        yield from chain(jobs, job.needs[START])
    yield job


def _behind(jobs: Path, key: str) -> Iterable[Job]:
    """Every training without which that of a student could not be: its chain, and those of students who made its pairs."""
    for job in chain(jobs, key):
        yield job
        if PAIRS in job.needs:
            for student in Job.load(jobs / job.needs[PAIRS]).needs.values():
                yield from _behind(jobs, student)


def descent(trainings: Sequence[Job]) -> str:
    """Whose weights the last of `trainings`, each of which started from the one before, began with, in words."""
    before = _ancestors(trainings)
    own = trainings[len(before)]
    if own.training.weights == RANDOM:
        return "random weights"
    whose = "a saved student" if own.start else f"the student {before[-1].name}" if before else f"the {TEACHER}"
    return f"slices of {whose}" if own.training.reduce else whose


def _ancestors(trainings: Sequence[Job]) -> Sequence[Job]:
    """Those that made other students. What only prepared a start, as one for all parts does, is the last one's own."""
    *before, own = trainings
    goes_on = before and own.training.weights != RANDOM and not own.training.reduce
    if goes_on and all(section_of(stage.name).prepares for stage in before[-1].training.stages):
        return _ancestors(before)
    return before


def _stages(folder: Path) -> list[dict[str, Any]]:
    """What was really done, stage by stage."""
    return read_facts(student_folder(folder))["stages"]


def _wall(statuses: list[Any]) -> float:
    return round(max(status.updated for status in statuses) - min(status.started for status in statuses), 1)
