"""What students start from, as a plan sees it: nobody's weights, another row's student, or a stage that all parts share."""

from __future__ import annotations

from typing import Any

import pytest

from builders import teacher_facts
from msd.errors import DataError, RecipeError
from msd.fleet.inputs import Inputs
from msd.fleet.jobs import START, Job, TrainTask
from msd.fleet.plan import Plan, plan
from msd.recipe import Recipe, validate

TSM = {"num_updates": 30, "batch_size": 8}
DM = {"num_updates": 100, "batch_size": 16, "regression": {"batch_size": 16}}


def recipe(**sections: Any) -> Recipe:
    return validate({"name": "test", "pairs": {"num_pairs": 400}, "dm": DM, "tsm": TSM, **sections})


def planned(images: str | None = None, **sections: Any) -> Plan:
    return plan(recipe(**sections), Inputs(teacher_facts(), images=images))


def students(found: Plan, row: str = "cohort") -> list[tuple[Job, TrainTask]]:
    keys = next(one for one in found.rows if one.name == row).jobs
    return [(found.by_key[key], found.by_key[key].task) for key in keys]  # pyright: ignore[reportReturnType]


def stages(task: TrainTask) -> list[str]:
    return [stage.name for stage in task.stages]


def test_each_part_matches_its_own_scores() -> None:
    found = planned(stages=["tsm", "dm"], student={"start": "random", "reduce": 0.5})
    for job, task in students(found):
        assert stages(task) == ["tsm", "dm"]
        assert (task.weights, task.reduce, task.start) == ("random", 0.5, None)
        assert set(job.needs) == {"pairs"}


def test_a_shared_stage_is_one_job_from_which_every_student_of_every_row_starts() -> None:
    """And it is scaled by no row: the cohort has it once, so at equal total updates the single student has it once too."""
    found = planned(stages=["tsm", "dm"], tsm={**TSM, "scope": "all"}, student={"start": "random", "reduce": 0.5})
    (shared,) = [job for job in found.jobs if isinstance(job.task, TrainTask) and stages(job.task) == ["tsm"]]
    assert isinstance(shared.task, TrainTask)
    assert len(shared.task.partition["parts"]) == 1  # pyright: ignore[reportOptionalSubscript]
    assert shared.task.stages[0].settings["num_updates"] == 30
    for row in ("single", "single-equal-total", "cohort"):
        for job, task in students(found, row):
            assert stages(task) == ["dm"]
            assert job.needs[START] == shared.key
            assert (task.start, task.weights, task.reduce) == (shared.task.hash, "start", None)
    assert students(found, "single-equal-total")[0][1].stages[0].settings["num_updates"] == 400


def test_a_student_may_start_from_another_row() -> None:
    """The pruned baseline: one student is trained whole, and four go on from slices of it."""
    rows = {
        "single": {"partition.num_parts": 1},
        "pruned": {"student.start": "row:single", "student.reduce": 0.4},
        "apart": {"student.start": "row:pruned"},
    }
    found = planned(rows=rows)
    ((single, _),) = students(found, "single")
    for job, task in students(found, "pruned"):
        assert job.needs[START] == single.key
        assert (task.start, task.reduce) == (single.task.hash, 0.4)
    for (job, _), (source, _) in zip(students(found, "apart"), students(found, "pruned"), strict=True):
        assert job.needs[START] == source.key


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({"one": {"student.start": "row:two"}}, r"student\.start: there is no row 'two'"),
        (
            {"one": {"student.start": "row:two"}, "two": {"student.start": "row:one"}},
            r"student\.start: one -> two -> one waits for itself",
        ),
        (
            {"one": {"student.start": "row:two"}, "two": {"pairs.source": "one"}},
            r"one -> two -> one waits for itself",
        ),
        (
            {"two": {"partition.num_parts": 2}, "one": {"student.start": "row:two"}},
            r"row two has 2 students of other parts; name a row of one",
        ),
        (
            {"two": {"partition.num_parts": 1, "student.sigma_init": 5}, "one": {"student.start": "row:two"}},
            r"students of row two start from noise level 5, these from 80",
        ),
    ],
)
def test_impossible_starts_are_refused(rows: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        planned(rows=rows)


def test_what_a_student_starts_as_decides_it() -> None:
    tasks = [
        students(planned(student=student))[0][1].hash
        for student in ({}, {"reduce": 0.4}, {"start": "random"}, {"start": "random", "reduce": 0.4}, {"critic": "student"})
    ]
    assert len(set(tasks)) == len(tasks)


def test_images_decide_only_what_sees_them() -> None:
    images = {"stages": ["tsm", "dm"], "tsm": {**TSM, "samples": "images"}}
    one, other = (students(planned(images=hash_, **images))[0] for hash_ in ("a" * 64, "b" * 64))
    assert one[1].data == "a" * 64
    assert one[0].data is not None
    assert one[1].hash != other[1].hash
    assert students(planned(images="a" * 64))[0][1].data is None


def test_a_critic_needs_a_student_that_has_learned_something() -> None:
    with pytest.raises(RecipeError, match=r"student\.critic: student .* leaves to chance; put tsm before dm"):
        recipe(student={"start": "random", "critic": "student"})
    recipe(student={"start": "random", "critic": "student"}, stages=["tsm", "dm"])


@pytest.mark.parametrize("stages", [["tsm"], ["dm", "tsm"], ["dm", "tsm", "adm"]])
def test_score_matching_comes_first_and_never_alone(stages: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"tsm only gives a student its start: it must be the first of stages"):
        recipe(stages=stages)


def test_each_stage_that_regresses_needs_pairs_of_the_part() -> None:
    adm = {"regression": {"batch_size": 300, "own_share": 1.0}}
    with pytest.raises(DataError, match=r"fewer than the 300 of a batch; set adm\.regression\.own_share lower"):
        planned(images="a" * 64, stages=["dm", "adm"], adm=adm)
    planned(adm=adm)
