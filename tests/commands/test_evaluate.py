"""A run's evaluation: kept by content, so that only what changed is measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import UNIFORM, save_student, save_teacher
from command import msd
from msd.cohort.manifest import assemble
from msd.conditions.partition import Partition
from msd.evaluation.bench import Bench
from msd.recipe import load_recipe

FEW = ["evaluation.num_samples=20", "evaluation.latency_batches=[1]", "evaluation.latency_repeats=1"]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """The cohort of a run, untrained, with a teacher of two Heun steps' patience."""
    teacher = save_teacher(tmp_path / "teacher")
    recipe = load_recipe("smoke", [f"teacher.source={tmp_path / 'teacher'}", *FEW]).model_dump(mode="json")
    make(tmp_path / "run" / "cohort", teacher.hash, recipe, seed=5)
    (tmp_path / "run" / "recipe.json").write_text("{}")
    return tmp_path / "run" / "cohort"


def make(folder: Path, teacher: str, recipe: dict, seed: int) -> None:
    halves = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)
    students = [
        save_student(folder.parent / f"made-{seed}" / str(part), halves, part, teacher=teacher, seed=seed + part)
        for part in range(2)
    ]
    assemble(folder, "test", halves, students, recipe=recipe)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows whose quality is measured, as it happens."""
    names: list[str] = []
    row = Bench.row

    def noting(self, sampler, *rest):
        names.append(sampler.name)
        return row(self, sampler, *rest)

    monkeypatch.setattr(Bench, "row", noting)
    return names


def evaluation(cohort: Path, *options: str) -> dict:
    return json.loads(msd("eval", cohort, *options, "--json").stdout)


def test_the_same_evaluation_is_answered_from_what_is_there(cohort: Path, measured: list[str]) -> None:
    first = evaluation(cohort)
    saved = (cohort.parent / "cohort-metrics.json").read_bytes()
    assert measured == ["teacher-heun18", "cohort"]
    assert evaluation(cohort) == first
    assert (cohort.parent / "cohort-metrics.json").read_bytes() == saved
    assert len(measured) == 2
    assert not list(cohort.glob("*metrics*"))
    assert first["rows"]["cohort"]["latency_taken_on"]["threads"] == 1
    assert first["seconds"].keys() == {"evaluation"}


def test_only_what_changed_is_measured_again(cohort: Path, tmp_path: Path, measured: list[str]) -> None:
    evaluation(cohort)
    recipe = json.loads((cohort / "cohort.json").read_text())
    make(cohort, recipe["teacher"]["hash"], recipe["recipe"], seed=50)
    measured.clear()
    evaluation(cohort)
    assert measured == ["cohort"]
    evaluation(cohort, "--set", "evaluation.batch_size=7")  # how many at a time decides nothing
    assert measured == ["cohort"]
    for change in ("evaluation.num_samples=21", "evaluation.nearest_neighbours=2", "evaluation.seed=2"):
        measured.clear()
        evaluation(cohort, "--set", change)
        assert measured == ["teacher-heun18", "cohort"]


def test_the_teachers_first_solver_is_the_reference(cohort: Path, measured: list[str]) -> None:
    found = evaluation(cohort, "--set", "evaluation.teacher=[heun-sde2, heun18]")
    assert (measured, found["reference"]) == (["teacher-heun-sde2", "cohort"], "teacher-heun-sde2")
    row = found["rows"]["teacher-heun-sde2"]
    assert (row["kind"], row["note"], row["num_function_evaluations"]) == ("teacher", "2 churned Heun steps", 3)
    again = evaluation(cohort, "--set", "evaluation.teacher=[heun-sde2]", "--set", "evaluation.batch_size=3")
    assert again["rows"]["teacher-heun-sde2"]["evaluation"] == row["evaluation"]


def test_a_broken_measurement_is_named_and_made_again(cohort: Path, measured: list[str]) -> None:
    first = evaluation(cohort)
    key = first["rows"]["cohort"]["evaluation"]
    (cohort.parent / "evaluations" / f"{key}.json").write_text("{")
    measured.clear()
    done = msd("eval", cohort, "--json")
    assert measured == ["cohort"]
    assert f"{key}.json (a measurement that is kept)" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["rows"]["cohort"]["kid"] == first["rows"]["cohort"]["kid"]


def test_a_cohort_outside_any_run_is_measured_each_time(cohort: Path, measured: list[str]) -> None:
    (cohort.parent / "recipe.json").unlink()
    evaluation(cohort)
    evaluation(cohort)
    assert len(measured) == 4
    assert not (cohort.parent / "evaluations").exists()
