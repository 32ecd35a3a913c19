"""Class names of a teacher and a cohort: they go with the weights, decide nothing, and stand for numbers in requests."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import msd
from builders import teacher_facts
from msd.cohort.manifest import MANIFEST, Manifest, assemble, read_manifest
from msd.conditions.partition import Partition
from msd.errors import ConditionError, WeightsError
from msd.fleet.inputs import Inputs
from msd.fleet.plan import plan
from msd.networks.facts import FACTS
from msd.recipe import load_recipe
from msd.teachers.facts import read_teacher
from msd.teachers.folder import Teacher

ANIMALS = ("cat", "dog", "a, b", "Zu\u0308rich", "\u732b", "3", "[bold]", "<script>", "\u0642\u0637\u0629", "emu")
TEN_NAMES = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=10, max_size=10)


def note(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.fixture
def named(cohort: Manifest, tmp_path: Path, halves: Partition) -> msd.Cohort:
    students = [cohort.student(part) for part in range(2)]
    return msd.Cohort.load(assemble(tmp_path / "named", "test", halves, students, recipe={}, classes=ANIMALS).folder)


def test_a_teacher_knows_its_classes_and_is_the_same_under_other_names(teacher: Teacher) -> None:
    assert teacher.facts.classes == tuple("0123456789")
    for names in (ANIMALS, tuple(reversed(ANIMALS))):
        note(teacher.facts.folder / FACTS, classes=list(names))
        facts = read_teacher(teacher.source)
        assert facts.classes == names
        assert facts.hash == teacher.hash


def test_names_change_no_plan() -> None:
    """Partition, tasks and job keys: a run goes on when classes are called something else."""
    recipe, facts = load_recipe("smoke"), teacher_facts()
    unnamed, called = (plan(recipe, Inputs(one)) for one in (facts, replace(facts, classes=ANIMALS)))
    assert [job.key for job in unnamed.jobs] == [job.key for job in called.jobs]
    assert unnamed.main.partition.hash == called.main.partition.hash


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat"], "has 1 names .* for 10 conditions; mend one of them"),
        ([""] * 10, "classes.0 "),
        ([1] * 10, "classes.0 should be a valid string"),
        ("abcdefghij", "classes should be a valid array"),
    ],
)
def test_a_teacher_with_odd_names_is_refused(teacher: Teacher, classes: object, message: str) -> None:
    note(teacher.facts.folder / FACTS, classes=classes)
    with pytest.raises(WeightsError, match=message):
        read_teacher(teacher.source)


def test_the_packaged_teacher_calls_digits_by_their_numbers() -> None:
    assert read_teacher("packaged:digits").classes == tuple("0123456789")


def test_a_cohort_keeps_the_names_it_is_assembled_with(named: msd.Cohort, cohort: Manifest) -> None:
    assert named.classes == named.manifest.classes == ANIMALS
    assert cohort.classes == tuple("0123456789")
    assert "classes" not in json.loads((cohort.folder / MANIFEST).read_text())  # as cohorts were before classes had names


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEN_NAMES)
def test_any_names_are_saved_and_read_again(cohort: Manifest, halves: Partition, names: list[str]) -> None:
    students = [cohort.folder.parent / f"student-{part}" for part in range(2)]
    assert assemble(cohort.folder, "test", halves, students, recipe={}, classes=names).classes == tuple(names)
    assert read_manifest(cohort.folder).classes == tuple(names)


def test_a_renamed_class_renews_the_manifest_and_no_student(named: msd.Cohort, tmp_path: Path, halves: Partition) -> None:
    students = [tmp_path / f"student-{part}" for part in range(2)]
    before = named.manifest.facts["students"]
    renamed = ("lion", *ANIMALS[1:])
    again = assemble(tmp_path / "named", "test", halves, students, recipe={}, classes=renamed)
    assert again.classes == renamed
    assert again.facts["students"] == before


@pytest.mark.parametrize("classes", [["cat"], []])
def test_a_manifest_of_too_few_names_is_refused(cohort: Manifest, classes: list[str]) -> None:
    note(cohort.folder / MANIFEST, classes=classes)
    with pytest.raises(WeightsError, match=f"has {len(classes)} names for 10 classes; make it again"):
        read_manifest(cohort.folder)


def test_names_and_numbers_ask_for_the_same_images(named: msd.Cohort) -> None:
    labels = ["cat", "emu", 1, "Z\u00fcrich", np.int64(4), "3", 3, "7"]
    numbers = [0, 9, 1, 3, 4, 5, 3, 7]
    assert named.keys(labels).tolist() == numbers
    assert torch.equal(named.generate(labels, seed=3), named.generate(numbers, seed=3))
    assert torch.equal(named.route(labels), named.partition.assign(numbers))
    for number, name in enumerate(ANIMALS):
        for form in ("NFC", "NFD"):
            assert named.keys([unicodedata.normalize(form, name)]).tolist() == [number]
    array: Any = np.array(["3"])
    assert torch.equal(named.generate(torch.tensor([5]), seed=3), named.generate(array, seed=3))


def test_an_unknown_name_is_told_with_the_nearest(named: msd.Cohort, cohort: Manifest) -> None:
    for ask in (named.generate, named.route, named.keys):
        with pytest.raises(ConditionError, match=r"there is no class 'dgo'; did you mean dog\?"):
            ask(["cat", "dgo"])
    with pytest.raises(ConditionError, match="there is no class 'cat'; give a number from 0 to 9"):
        msd.Cohort.load(cohort.folder).generate(["cat"])
