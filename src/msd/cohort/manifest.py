"""A cohort on disk: `cohort.json`, and `students/<k>/`, each a diffusers model folder with its own `denoiser.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msd import checks
from msd.conditions.names import are_numbers, numbered
from msd.conditions.partition import Partition
from msd.errors import MsdError, RunError, WeightsError, warn
from msd.files import link_or_copy, replacing_folder, write_json
from msd.networks.facts import (
    AUTOENCODER,
    AUTOENCODER_FILES,
    FACTS,
    FILES,
    Shape,
    TeacherNotes,
    config_sha256,
    identity,
    read_facts,
    verified_facts,
)
from msd.reading import Kind, RelativePath, Stored, clause, read_object

SCHEMA = 2
MANIFEST = "cohort.json"
REMEDY = "make it again with `msd distill`"
_KIND = Kind("a cohort's manifest", REMEDY, WeightsError, schema=SCHEMA)


class _StudentEntry(Stored):
    part: int
    folder: RelativePath
    conditions: tuple[int, ...]
    hash: str
    task: str | None


class _StoredManifest(Stored):
    name: str
    noise_shape: Shape
    pixel_shape: Shape
    partition: dict[str, Any]
    teacher: TeacherNotes
    students: tuple[_StudentEntry, ...]
    recipe: dict[str, Any]
    classes: tuple[str, ...] | None = None
    """Names of the classes, where they have other names than their numbers."""


@dataclass(frozen=True)
class Manifest:
    """What `cohort.json` says, checked: the partition, and one folder a part whose student was trained for that part."""

    folder: Path
    name: str
    partition: Partition
    facts: dict[str, Any]

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return tuple(self.facts["noise_shape"])

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        return tuple(self.facts["pixel_shape"])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The name of each class, in the order of their numbers; the numbers where they have no names."""
        return tuple(self.facts.get("classes") or numbered(self.partition.num_conditions))

    def student(self, part: int) -> Path:
        return self.folder / _student_folder(part)


def assemble(
    folder: Path,
    name: str,
    partition: Partition,
    students: Sequence[Path],
    *,
    recipe: dict[str, Any],
    classes: Sequence[str] = (),
) -> Manifest:
    """Copy finished students (in order of their parts) into a new cohort folder, all or nothing.

    `classes` are the names of the partition's classes, in the order of their numbers; without any they are the numbers.

    Every student is verified, byte for byte, before an old cohort is touched; where that already consists of the same
    students, nothing is written. Of an old one only what its manifest lists is replaced: what else lies there stays.

    Raises WeightsError naming the student that is damaged, of another part or the odd one, RunError when the folder
    cannot be written.
    """
    facts = [_trained_for(partition, part, source, verified_facts(source)) for part, source in enumerate(students)]
    if len(students) != partition.num_parts:
        raise WeightsError(f"{len(students)} students do not make a cohort of {partition.num_parts} parts; give one a part.")
    value = _describe(name, partition, students, facts, recipe)
    if classes and not are_numbers(classes):
        value["classes"] = list(classes)
        _check_classes(value, partition, "the new cohort")
    if _is_already(folder, value):
        return read_manifest(folder)
    known = _files(len(students))
    written = _written(folder)
    for file in sorted(known - written):
        if written and (folder / file).exists():
            raise RunError(f"{folder / file} is in the way: this cohort did not put it there; move it elsewhere.")
    with replacing_folder(folder, ours=written) as temporary:
        for part, source in enumerate(students):
            target = temporary / _student_folder(part)
            target.mkdir(parents=True)
            for file in FILES:
                shutil.copy2(source / file, target / file)
            if (source / AUTOENCODER).is_dir():
                (target / AUTOENCODER).mkdir()
                for file in AUTOENCODER_FILES:
                    link_or_copy(source / file, target / file)
        write_json(temporary / MANIFEST, value)
    return read_manifest(folder)


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check a cohort's manifest and its students' descriptions. Raises WeightsError or PartitionError.

    Weights are checked against their checksums when a student is loaded.
    """
    folder = checks.path(folder, "a cohort's folder", error=WeightsError)
    path = folder / MANIFEST
    value = read_object(path, _StoredManifest, _KIND)
    partition = Partition.from_json(value["partition"], source=str(path))
    _check_classes(value, partition, str(path))
    students = value["students"]
    if len(students) != partition.num_parts:
        raise WeightsError(f"{folder} has {len(students)} students for {partition.num_parts} parts; {REMEDY}.")
    manifest = Manifest(folder, value["name"], partition, value)
    for part, entry in enumerate(students):
        student = manifest.student(part)
        facts = _trained_for(partition, part, student, read_facts(student))
        if identity(facts | {"config_sha256": config_sha256(student)}) != entry["hash"]:
            raise WeightsError(f"{student} is not the student that {MANIFEST} lists; {REMEDY}.")
    return manifest


def _check_classes(value: dict[str, Any], partition: Partition, source: str) -> None:
    if (names := value.get("classes")) is not None and len(names) != partition.num_conditions:
        raise WeightsError(f"{source} has {len(names)} names for {partition.num_conditions} classes; {REMEDY}.")


def _student_folder(part: int) -> str:
    return f"students/{part}"


def _files(num_students: int) -> set[str]:
    """All that a cohort consists of, as paths within its folder."""
    return {
        MANIFEST,
        *(f"{_student_folder(part)}/{file}" for part in range(num_students) for file in (*FILES, *AUTOENCODER_FILES)),
    }


def _written(folder: Path) -> set[str]:
    """The files of the cohort in `folder`, by its own manifest; none where that is missing or cannot be read."""
    try:
        return _files(len(read_object(folder / MANIFEST, _StoredManifest, _KIND)["students"]))
    except MsdError:
        return set()


def _trained_for(partition: Partition, part: int, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of the student in `folder`, once they say that it was trained for this part of this partition."""
    if facts.get("partition_hash") != partition.hash or facts.get("part") != part:
        theirs = str(facts.get("partition_hash"))[:12]
        raise WeightsError(
            f"{folder} was trained for part {facts.get('part')} of partition {theirs}, not for "
            f"part {part} of {partition.hash[:12]}; students and router must come from one run of `msd distill`."
        )
    return facts


def _describe(
    name: str, partition: Partition, students: Sequence[Path], facts: Sequence[dict[str, Any]], recipe: dict[str, Any]
) -> dict[str, Any]:
    """The content of `cohort.json`. Raises WeightsError when students differ in their teacher or in what they make."""
    from msd.networks.folder import spec_from_json  # brings torch, which reading a manifest does without

    both = list(zip(students, facts, strict=True))
    specs = [spec_from_json(entry["spec"], source=str(source / FACTS)) for source, entry in both]
    teachers = [_teacher_of(source, entry) for source, entry in both]
    for source, spec in zip(students, specs, strict=True):
        if spec.sigma_init is None:
            raise WeightsError(f"{source} is not a one-step student: its {FACTS} has no sigma_init.")
    _agree(students, "was distilled from teacher {}", [str(teacher["hash"])[:12] for teacher in teachers])
    _agree(students, "takes noise of shape {}", [spec.noise_shape for spec in specs])
    _agree(students, "makes pixels of shape {}", [spec.pixel_shape for spec in specs])
    value = {
        "schema": SCHEMA,
        "name": name,
        "noise_shape": specs[0].noise_shape,
        "pixel_shape": specs[0].pixel_shape,
        "partition": partition.to_json(),
        "teacher": teachers[0],
        "students": [
            {
                "part": part,
                "folder": _student_folder(part),
                "conditions": partition.parts[part],
                "hash": identity(entry),
                "task": entry.get("task"),
            }
            for part, entry in enumerate(facts)
        ],
        "recipe": recipe,
    }
    return json.loads(json.dumps(value))  # as it will be read back: lists for tuples


def _teacher_of(source: Path, facts: dict[str, Any]) -> dict[str, Any]:
    teacher = facts.get("teacher")
    if not isinstance(teacher, dict) or "hash" not in teacher:
        raise WeightsError(f"{source / FACTS} does not say by which teacher it was distilled; {REMEDY}.")
    return teacher


def _agree(students: Sequence[Path], sentence: str, values: Sequence[Any]) -> None:
    """Raises WeightsError naming the first student whose value is not the most common one."""
    usual = Counter(values).most_common(1)[0][0]
    for source, value in zip(students, values, strict=True):
        if value != usual:
            raise WeightsError(
                f"{source} {sentence.format(value)}, the others {usual}; a cohort has one of each, so {REMEDY}."
            )


def _is_already(folder: Path, value: dict[str, Any]) -> bool:
    """Whether `folder` is this very cohort, undamaged; what is wrong with one that is damaged is told."""
    if not os.path.lexists(folder / MANIFEST):
        return False
    try:
        manifest = read_manifest(folder)
        if manifest.facts != value:
            return False
        for part in range(manifest.partition.num_parts):
            verified_facts(manifest.student(part))
    except MsdError as error:
        warn(f"{clause(error)}; the cohort is assembled again from its finished students.")
        return False
    return True
