"""Classes by name on the command line: a teacher whose classes have names, planned, divided, assembled, sampled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import save_student
from command import fails, msd
from msd.cohort.manifest import MANIFEST, Manifest, assemble
from msd.commands.console import Output
from msd.commands.distill import assemble_row, prepare
from msd.conditions.partition import Partition
from msd.fleet.jobs import student_folder
from msd.networks.facts import FACTS
from msd.recipe import load_recipe
from msd.run import Run
from msd.teachers.folder import Teacher

ANIMALS = ("cat", "dog", "a, b", "Zu\u0308rich", "\u732b", "3", "[bold]", "<script>", "\u0642\u0637\u0629", "emu")
PRIOR = [0.02, *[0.1] * 8, 0.18]


@pytest.fixture
def named(cohort: Manifest, tmp_path: Path, halves: Partition) -> Path:
    students = [cohort.student(part) for part in range(2)]
    return assemble(tmp_path / "named", "test", halves, students, recipe={}, classes=ANIMALS).folder


@pytest.fixture
def source(teacher: Teacher) -> Path:
    path = teacher.facts.folder / FACTS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": ANIMALS, "prior": PRIOR}), encoding="utf-8")
    return teacher.facts.folder


def test_samples_are_asked_for_by_name(named: Path, tmp_path: Path) -> None:
    """Also a name with a comma, in another Unicode form, or that is a number; and numbers that are nobody's name."""
    out = tmp_path / "a.npz"
    arguments = ("sample", named, "--num", 2, "--seed", 1, "--out", out)
    value = json.loads(msd(*arguments, "--labels", 'cat, "a, b",Z\u00fcrich,3,7', "--json").stdout)
    assert value["students"] == {"cat": 0, "a, b": 0, "Zu\u0308rich": 1, "3": 1, "<script>": 1}
    with np.load(out) as arrays:
        by_name = arrays["images"]
        assert arrays["labels"].tolist() == [0, 0, 2, 2, 3, 3, 5, 5, 7, 7]
        assert sorted(arrays) == ["images", "labels"]
    msd(*arguments, "--labels", "0,2,Z\u00fcrich,5,7")
    with np.load(out) as arrays:
        assert np.array_equal(arrays["images"], by_name)


def test_a_grid_has_its_names_on_the_left_or_none(named: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    arguments = ("sample", named, "--labels", "dog,\u732b", "--num", 3, "--seed", 1, "--out", out)
    msd(*arguments, "--no-names")
    with Image.open(out) as picture:
        plain = np.asarray(picture)
    msd(*arguments)
    with Image.open(out) as picture:
        written = np.asarray(picture)
    assert plain.shape == (2 * 42 + 2, 3 * 42 + 2)
    assert written.shape[1] > plain.shape[1]
    assert np.array_equal(written[:, -plain.shape[1] :], plain)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("cat,dgo", "there is no class 'dgo'; did you mean dog?"),
        ("a", 'did you mean "a, b"'),
        ("a, b", "there is no class 'a'"),
        ('"cat', "is not a list of names (unexpected end of data); write e.g. --labels cat,dog"),
        ("cat,10", "class 10 is outside the partition; classes are 0 to 9"),
        (",", "there is no class ''; choose one of cat, dog,"),
        ("[red]", "there is no class '[red]'"),
    ],
)
def test_unknown_names_are_answered(named: Path, tmp_path: Path, labels: str, sentence: str) -> None:
    assert sentence in fails("sample", named, f"--labels={labels}", "--out", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_plan_names_the_classes_of_its_students(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ("plan", "smoke", "--set", f"teacher.source={source}")
    jobs = {job["name"]: job for job in json.loads(msd(*arguments, "--json").stdout)["jobs"]}
    assert jobs["student-0"]["conditions"] == list(ANIMALS[:5])
    assert jobs["pairs"]["conditions"] is None
    text = " ".join(msd(*arguments).stdout.split())
    assert 'cat, dog, "a, b", +2' in text
    assert "classes differ in how often they occur: from cat (2.0%) to emu (18%)" in text


def test_a_partition_is_made_of_names_and_shown_by_them(source: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "split.yaml", tmp_path / "run"
    file.write_text("parts: [[emu, Z\u00fcrich, '3'], []]\nrest: 1", encoding="utf-8")
    settings = [f"teacher.source={source}", "partition.method=file", f"partition.file={file}"]
    arguments = ("partition", "smoke", *(word for one in settings for word in ("--set", one)), "--out", out)
    shown = msd(*arguments).stdout
    assert "emu, Zu\u0308rich, 3" in shown
    report = json.loads(msd(*arguments, "--json").stdout)
    assert report["parts"][0]["conditions"] == [9, 3, 5]
    assert report["classes"] == list(ANIMALS)
    assert report["prior"] == pytest.approx(PRIOR)
    assert json.loads((out / "partition-report.json").read_text()) == report
    file.write_text("parts: [[emmu], []]\nrest: 1", encoding="utf-8")
    assert "there is no class 'emmu' (part 0 in" in fails(*arguments)


def test_a_run_s_cohort_is_called_as_its_teacher_calls_the_classes(source: Path, tmp_path: Path) -> None:
    """As `msd distill` assembles it; the names of a teacher's classes may change, which trains nothing again."""
    recipe = load_recipe("smoke", [f"teacher.source={source}"])
    run = Run.at(recipe, tmp_path / "run")
    planned, inputs = prepare(run, Output())
    row = planned.main
    for part, key in enumerate(row.jobs):
        save_student(student_folder(run.jobs / key), row.partition, part, teacher=inputs.teacher.hash)
    manifest = assemble_row(run, row, inputs)
    assert manifest.classes == ANIMALS
    assert json.loads((run.cohort / MANIFEST).read_text())["classes"] == list(ANIMALS)
