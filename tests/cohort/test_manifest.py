"""The delivered folder: whole, of one teacher and partition, replaced all at once or not at all; misfits refuse to load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import msd
from builders import UNIFORM, save_student
from msd.cohort.manifest import Manifest, assemble, read_manifest
from msd.conditions.partition import Partition
from msd.diffusion.codec import AffineCodec
from msd.errors import WeightsError
from msd.networks.facts import FACTS, FILES, WEIGHTS, denoiser_hash


def damage(student: Path) -> None:
    content = bytearray((student / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (student / WEIGHTS).write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_students_and_router_of_two_partitions_refuse_to_load(cohort: Manifest) -> None:
    manifest = cohort.folder / "cohort.json"
    value = json.loads(manifest.read_text())
    other = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=UNIFORM)
    manifest.write_text(json.dumps(value | {"partition": other.to_json()}))
    with pytest.raises(WeightsError, match="students and router must come from one run"):
        msd.Cohort.load(cohort.folder)


def test_swapped_students_are_refused(tmp_path: Path, halves: Partition) -> None:
    students = [save_student(tmp_path / f"student-{part}", halves, part) for part in (1, 0)]
    with pytest.raises(WeightsError, match="trained for part 1"):
        assemble(tmp_path / "cohort", "test", halves, students, recipe={})
    assert not (tmp_path / "cohort").exists()
    assert not list(tmp_path.glob(".*"))


def test_damaged_weights_are_named(cohort: Manifest) -> None:
    damage(cohort.student(1))
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([0], seed=0)
    with pytest.raises(WeightsError, match="is damaged: its checksum is not the recorded one"):
        loaded.generate([1], seed=0)


def test_a_missing_student_or_manifest_is_named(cohort: Manifest, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        msd.Cohort.load(tmp_path / "nowhere")
    (cohort.student(1) / "denoiser.json").unlink()
    with pytest.raises(WeightsError, match=r"denoiser.json .* does not exist"):
        msd.Cohort.load(cohort.folder)


def test_assembling_again_replaces_the_old_cohort(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    again = assemble(cohort.folder, "again", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert read_manifest(cohort.folder).name == again.name == "again"


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_assembling_the_same_students_again_writes_nothing(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    before = contents(cohort.folder)
    again = assemble(cohort.folder, "test", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert contents(cohort.folder) == before
    assert again == cohort


def test_a_damaged_copy_is_mended_by_assembling_again(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    damage(cohort.student(0))
    assemble(cohort.folder, "test", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    msd.Cohort.load(cohort.folder).generate([0], seed=0)


def truncate(student: Path) -> None:
    (student / WEIGHTS).write_bytes((student / WEIGHTS).read_bytes()[:-100])


def reconfigure(student: Path) -> None:
    edit(student / "config.json", norm_num_groups=8)


@pytest.mark.parametrize("harm", [truncate, damage, reconfigure])
def test_a_student_that_is_not_whole_leaves_the_old_cohort_alone(
    cohort: Manifest, tmp_path: Path, halves: Partition, harm: Callable[[Path], None]
) -> None:
    before = contents(cohort.folder)
    harm(tmp_path / "student-1")
    with pytest.raises(WeightsError, match=r"student-1.* is damaged: its checksum is not the recorded one"):
        assemble(cohort.folder, "new", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert contents(cohort.folder) == before
    assert not list(tmp_path.glob(".*"))


def test_a_cohort_is_neither_short_of_students_nor_of_too_many(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    before = contents(cohort.folder)
    with pytest.raises(WeightsError, match="1 students do not make a cohort of 2 parts"):
        assemble(cohort.folder, "new", halves, [tmp_path / "student-0"], recipe={})
    assert contents(cohort.folder) == before


def test_a_cohort_has_one_teacher(tmp_path: Path) -> None:
    """The odd student is named, wherever it stands."""
    thirds = Partition(parts=((0, 1, 2), (3, 4, 5), (6, 7, 8, 9)), prior=UNIFORM)
    students = [
        save_student(tmp_path / f"student-{part}", thirds, part, teacher="other" if part == 0 else "usual")
        for part in range(3)
    ]
    with pytest.raises(WeightsError, match=r"student-0 was distilled from teacher other, the others usual"):
        assemble(tmp_path / "cohort", "test", thirds, students, recipe={})
    assert not (tmp_path / "cohort").exists()


def test_the_manifest_says_what_it_holds(cohort: Manifest, tmp_path: Path) -> None:
    """Each student's identity and task, and nothing but what a student consists of is delivered."""
    (tmp_path / "student-0" / "notes.txt").write_text("mine")
    for part, entry in enumerate(cohort.facts["students"]):
        assert entry["hash"] == denoiser_hash(cohort.student(part)) == denoiser_hash(tmp_path / f"student-{part}")
        assert entry["task"] == f"task-{part}"
        assert sorted(path.name for path in cohort.student(part).iterdir()) == sorted(FILES)


def test_a_student_exchanged_for_another_of_the_same_part_is_refused(
    cohort: Manifest, tmp_path: Path, halves: Partition
) -> None:
    """Same partition, same part, sound weights, but of another run."""
    other = save_student(tmp_path / "other", halves, 1, teacher="another", codec=AffineCodec(0.1))
    for name in FILES:
        (cohort.student(1) / name).write_bytes((other / name).read_bytes())
    with pytest.raises(WeightsError, match=r"students/1 is not the student that cohort\.json lists"):
        msd.Cohort.load(cohort.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1, "partition": None}, r"made by an older msd \(schema 1\); make it again with `msd distill`"),
        ({"schema": 3, "partition": None}, r"newer msd \(schema 3, this one reads 2\); update msd"),
        ({"wings": 2}, "unknown field 'wings'"),
        ({"students": []}, "has 0 students for 2 parts"),
        ({"students": [{}, {}]}, r"cohort\.json is not .* \(it lacks 'students\.0\.part'\)"),
    ],
)
def test_a_manifest_of_another_layout_is_refused(cohort: Manifest, changes: dict, message: str) -> None:
    edit(cohort.folder / "cohort.json", **changes)
    with pytest.raises(WeightsError, match=message):
        read_manifest(cohort.folder)


def test_a_student_of_an_older_layout_is_refused(cohort: Manifest) -> None:
    edit(cohort.student(0) / FACTS, schema=1)
    with pytest.raises(WeightsError, match=r"saved by an older msd \(schema 1\)"):
        read_manifest(cohort.folder)


def test_a_manifest_is_read_without_torch(cohort: Manifest) -> None:
    code = "import sys; from pathlib import Path; from msd.cohort.manifest import read_manifest\n"
    code += "read_manifest(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(cohort.folder)], check=False).returncode == 0
