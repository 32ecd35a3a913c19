"""What a student starts from when it is not the teacher: a saved student, or a finished job's result. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msd import checks
from msd.conditions.partition import Partition
from msd.errors import WeightsError
from msd.files import sha256_file, sha256_json
from msd.fleet.jobs import BUNDLE, RESULT, RESULT_KIND, Result, result_folder
from msd.networks.facts import FACTS, identity, verified_facts
from msd.reading import read_model
from msd.recipe import STUDENT, Recipe
from msd.teachers.facts import TeacherFacts


@dataclass(frozen=True)
class Start:
    """A student's folder, the bundle of all roles beside it where there is one, and the hash of both."""

    student: Path
    bundle: Path | None
    hash: str
    facts: dict[str, Any]


def read_start(folder: str | Path) -> Start:
    """Find the student in `folder`: a job's folder, its result, or the student itself.

    Raises WeightsError, also when it or the bundle beside it is not what its checksums say; RunError when a job's result is
    broken.
    """
    folder = checks.path(folder, "student.start", error=WeightsError)
    for result in (result_folder(folder), folder):
        student = result / STUDENT
        if (student / FACTS).is_file():
            return _start(student, result / BUNDLE)
    if (folder / FACTS).is_file():
        return _start(folder, None)
    raise WeightsError(
        f"student.start {folder} holds no student (no {FACTS}); give a student's folder, or a finished job's."
    )


def _start(student: Path, bundle: Path | None) -> Start:
    facts = verified_facts(student)
    if bundle is None or not bundle.is_file():
        return Start(student, None, sha256_json([identity(facts), None]), facts)
    checksum, seal = sha256_file(bundle, WeightsError), bundle.with_name(RESULT)
    sealed = read_model(seal, Result, RESULT_KIND).files if seal.is_file() else {}
    if sealed.get(BUNDLE, checksum) != checksum:
        raise WeightsError(
            f"{bundle} is damaged: its checksum is not the recorded one; restore it, or start from {student} alone."
        )
    return Start(student, bundle, sha256_json([identity(facts), checksum]), facts)


def check_start(start: Start, teacher: TeacherFacts, recipe: Recipe, partition: Partition, part: int) -> None:
    """Raises WeightsError when the start belongs to another teacher, shape, noise level, or to other conditions."""
    facts, folder = start.facts, start.student
    if facts.get("role") != STUDENT:
        raise WeightsError(
            f"{folder} holds a {facts.get('role')}, not a student; leave student.start at teacher for a copy."
        )
    theirs = (facts.get("teacher") or {}).get("hash")
    if theirs != teacher.hash:
        raise WeightsError(
            f"{folder} was distilled from teacher {str(theirs)[:12]}, not from {teacher.source} ({teacher.hash[:12]}); "
            "start from a student of this teacher, or set teacher.source."
        )
    shape = tuple(facts["spec"]["noise_shape"])
    if shape != teacher.noise_shape:
        raise WeightsError(
            f"{folder} works on samples of shape {shape}, the teacher on {teacher.noise_shape}; choose another."
        )
    sigma = facts["spec"]["sigma_init"]
    if sigma != recipe.student.sigma_init:
        raise WeightsError(
            f"{folder} starts from noise level {sigma}, the recipe from {recipe.student.sigma_init}; "
            f"set student.sigma_init={sigma}."
        )
    missing = sorted(set(partition.parts[part]) - set(facts.get("conditions") or ()))
    if missing:
        raise WeightsError(
            f"{folder} belongs to another partition: it never saw class {missing[0]}, which part {part} owns; start from a "
            "student that knows the whole part."
        )
