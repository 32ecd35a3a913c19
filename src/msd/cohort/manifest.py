"""A cohort on disk: `cohort.json`, and `students/<k>/`, each a diffusers model folder with its own `denoiser.json`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msd.conditions.partition import Partition
from msd.errors import WeightsError
from msd.files import read_json, replacing_folder, write_json
from msd.networks.folder import read_facts

SCHEMA = 1
MANIFEST = "cohort.json"


@dataclass(frozen=True)
class Manifest:
    """What `cohort.json` says, checked: the partition, and one folder a part whose student was trained for that part."""

    folder: Path
    name: str
    partition: Partition
    facts: dict[str, Any]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self.facts["sample_shape"])

    def student(self, part: int) -> Path:
        return self.folder / "students" / str(part)


def assemble(folder: Path, name: str, partition: Partition, students: Sequence[Path], *, recipe: dict[str, Any]) -> Manifest:
    """Copy finished students (in order of their parts) into a new cohort folder, all or nothing. Raises WeightsError."""
    entries = []
    with replacing_folder(folder) as temporary:
        for part, source in enumerate(students):
            facts = _check_student(source, partition, part)
            shutil.copytree(source, temporary / "students" / str(part))
            entries.append(
                {
                    "part": part,
                    "folder": f"students/{part}",
                    "conditions": list(partition.parts[part]),
                    "weights_sha256": facts["weights_sha256"],
                    "lineage": facts["lineage"],
                    "stages": facts["stages"],
                }
            )
            teacher, sample_shape = facts["teacher"], facts["spec"]["sample_shape"]
        write_json(
            temporary / MANIFEST,
            {
                "schema": SCHEMA,
                "name": name,
                "sample_shape": sample_shape,
                "partition": partition.to_json(),
                "teacher": teacher,
                "students": entries,
                "recipe": recipe,
            },
        )
    return read_manifest(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a cohort's manifest and its students' descriptions. Raises WeightsError or PartitionError."""
    value = read_json(folder / MANIFEST, what="a cohort's manifest", error=WeightsError)
    try:
        schema, students, name = value["schema"], value["students"], value["name"]
        partition = Partition.from_json(value["partition"], source=str(folder / MANIFEST))
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{folder / MANIFEST} lacks {error}; assemble the cohort again with `msd distill`.") from error
    if schema != SCHEMA:
        raise WeightsError(f"{folder} has schema {schema}, this version of msd reads {SCHEMA}; update msd.")
    if len(students) != partition.num_parts:
        raise WeightsError(
            f"{folder} has {len(students)} students for {partition.num_parts} parts; assemble it again with `msd distill`."
        )
    manifest = Manifest(folder, name, partition, value)
    for part in range(partition.num_parts):
        _check_student(manifest.student(part), partition, part)
    return manifest


def _check_student(folder: Path, partition: Partition, part: int) -> dict[str, Any]:
    facts = read_facts(folder)
    if facts.get("partition_hash") != partition.hash or facts.get("part") != part:
        theirs = str(facts.get("partition_hash"))[:12]
        raise WeightsError(
            f"{folder} was trained for part {facts.get('part')} of partition {theirs}, not for "
            f"part {part} of {partition.hash[:12]}; students and router must come from one run of `msd distill`."
        )
    return facts
