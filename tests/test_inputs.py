"""Inputs that change under a run: what depends on them is made again, what does not stays, and nothing is mixed or lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from builders import UNIFORM, tiny_denoiser
from command import fails, msd
from msd.cohort.generate import Cohort
from msd.networks.folder import WEIGHTS, save_denoiser

FEW = ("--set", "dm.num_updates=2", "--set", "pairs.num_pairs=32", "--set", "rows={}")


def new_teacher(folder: Path, seed: int) -> Path:
    """An untrained teacher, in place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_denoiser(tiny_denoiser(seed), folder, role="teacher", prior=list(UNIFORM))
    return folder


def students(run: Path) -> list[Path]:
    return sorted(run.glob("jobs/student-*/result/student"))


def test_a_cohort_never_holds_two_teachers(tmp_path: Path) -> None:
    """Replace the teacher between the students: the first one is made again, and the message says why."""
    teacher, out = new_teacher(tmp_path / "teacher", 0), tmp_path / "run"
    arguments = ("distill", "smoke", "--set", f"teacher.source={teacher}", *FEW, "--out", out)
    msd(*arguments, "--students", "0")
    first = students(out)
    new_teacher(teacher, 1)
    said = msd(*arguments, "--students", "1").stderr
    assert "pairs is made again: its teacher changed since" in " ".join(said.split())
    done = msd(*arguments)
    assert len(students(out)) == 3  # the old student 0 stays where it was
    used = {entry["hash"] for entry in Cohort.load(out / "cohort").manifest.facts["students"]}
    assert len(used) == 2
    teachers = {json.loads((folder / "denoiser.json").read_text())["teacher"]["hash"] for folder in students(out)}
    assert len(teachers) == 2
    assert Cohort.load(out / "cohort").manifest.facts["teacher"]["hash"] in teachers
    assert first[0].exists()
    assert done.stdout


def test_finished_students_of_a_replaced_teacher_are_stale(tmp_path: Path) -> None:
    teacher, out = new_teacher(tmp_path / "teacher", 0), tmp_path / "run"
    arguments = ("distill", "smoke", "--set", f"teacher.source={teacher}", *FEW, "--out", out)
    msd(*arguments)
    before = Cohort.load(out / "cohort").manifest.facts["teacher"]["hash"]
    new_teacher(teacher, 1)
    msd(*arguments)
    assert Cohort.load(out / "cohort").manifest.facts["teacher"]["hash"] != before
    new_teacher(teacher, 2)
    assert "is another teacher" in fails("eval", out / "cohort")
    new_teacher(teacher, 0)  # and back: the first students are still there, and nothing is trained
    made = [path.stat().st_mtime_ns for path in students(out)]
    msd(*arguments)
    assert [path.stat().st_mtime_ns for path in students(out)] == made
    assert Cohort.load(out / "cohort").manifest.facts["teacher"]["hash"] == before


def test_a_truncated_student_is_made_again_and_the_cohort_stays_good(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("distill", "smoke", *FEW, "--out", out)
    msd(*arguments)
    weights = students(out)[1] / WEIGHTS
    content, manifest = weights.read_bytes(), out / "cohort" / "cohort.json"
    before = manifest.stat().st_mtime_ns
    weights.write_bytes(content[:-100])
    msd(*arguments)
    assert weights.read_bytes() == content
    assert manifest.stat().st_mtime_ns == before  # the same students: nothing to assemble
    Cohort.load(out / "cohort").generate([0, 9], seed=0)


def test_a_changed_partition_file_is_another_partition_and_a_deleted_one_an_error(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.yaml", tmp_path / "run"
    mine.write_text("parts: [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]")
    options = ("--set", "partition.method=file", "--set", f"partition.file={mine}", *FEW, "--out", out)
    msd("distill", "smoke", *options)
    mine.write_text("parts: [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]")
    said = " ".join(msd("distill", "smoke", *options).stderr.split())
    assert "student-0 is made again: its partition changed since" in said
    assert "pairs is made again" not in said
    assert Cohort.load(out / "cohort").route([4]).tolist() == [1]
    assert json.loads((out / "partition.json").read_text())["parts"][0] == [0, 1, 2, 3]
    mine.unlink()
    assert "mine.yaml (a division into parts) does not exist; check partition.file" in fails("distill", "smoke", *options)


@pytest.mark.parametrize(
    ("wrong", "expected", "mended"),
    [
        ("partition.num_parts=11", "cannot be split into 11 parts", "partition.num_parts=2"),
        ("teacher.source=nowhere", "nowhere is not there; put the file or folder there", "teacher.source=packaged:digits"),
        ("dm.regression.own_share=1", "pairs of its own", "dm.regression.own_share=0"),
    ],
)
def test_a_failed_first_attempt_does_not_bind_the_folder(tmp_path: Path, wrong: str, expected: str, mended: str) -> None:
    common = (*FEW, "--set", "dm.regression.batch_size=30", "--out", tmp_path / "run")
    assert expected in fails("partition", "smoke", "--set", wrong, *common)
    assert not (tmp_path / "run").exists()
    msd("partition", "smoke", "--set", mended, *common)


def test_a_run_of_the_old_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "smoke", "baselines": ["single"]}))
    for arguments in (("distill", "smoke", "--out", tmp_path), ("status", tmp_path), ("report", tmp_path)):
        assert "recipe.json is not a run's recipe (it says no schema); remove it and give" in fails(*arguments)


def test_a_one_step_student_is_no_teacher(tmp_path: Path) -> None:
    out = tmp_path / "run"
    msd("distill", "smoke", *FEW, "--out", out)
    source = f"teacher.source={out / 'cohort' / 'students' / '0'}"
    assert "is a one-step student" in fails("distill", "smoke", "--set", source, "--out", tmp_path / "other")
    assert "is a one-step student" in fails("plan", "smoke", "--set", source)


def test_what_decides_a_cohort_cannot_be_changed_by_measuring_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    msd("distill", "smoke", *FEW, "--out", out)
    assert "eval only measures" in fails("eval", out / "cohort", "--set", "partition.num_parts=3")


def test_pairs_from_a_row_and_a_start_from_a_folder(tmp_path: Path) -> None:
    """Students regressed on a single student's samples; then a branch: students that start from that single student."""
    out = tmp_path / "run"
    single = "rows={single: {partition.num_parts: 1, pairs.source: teacher}}"
    msd("distill", "smoke", "--set", "dm.num_updates=2", "--set", single, "--set", "pairs.source=single", "--out", out)
    names = {path.name.rpartition("-")[0] for path in (out / "jobs").iterdir()}
    assert names == {"pairs", "single", "pairs-of-single", "student-0", "student-1"}
    (start,) = out.glob("jobs/single-????????")
    options = ("--set", f"student.start={start}", *FEW, "--out", tmp_path / "branched")
    msd("distill", "smoke", *options)
    facts = json.loads((tmp_path / "branched" / "cohort" / "students" / "0" / "denoiser.json").read_text())
    assert facts["lineage"][0] == "teacher"
    assert len(facts["lineage"]) == 2
