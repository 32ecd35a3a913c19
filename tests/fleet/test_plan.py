"""The plan: every need exists, none waits in a circle, same content gives same hashes, rows hold equal what they say."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import UNIFORM, save_student, teacher_facts
from msd.conditions.partition import Partition
from msd.errors import DataError, PartitionError, RecipeError, WeightsError
from msd.fleet.inputs import Inputs, read_inputs
from msd.fleet.jobs import PairsTask, TrainTask
from msd.fleet.plan import Plan, plan
from msd.fleet.queue import cost
from msd.recipe import Recipe, validate
from msd.teachers.folder import Teacher

BASE: dict[str, Any] = {
    "name": "test",
    "pairs": {"num_pairs": 400},
    "dm": {"num_updates": 100, "batch_size": 16, "regression": {"batch_size": 16}},
}


def recipe(**sections: Any) -> Recipe:
    return validate({**BASE, **sections})


def planned(**sections: Any) -> Plan:
    return plan(recipe(**sections), Inputs(teacher_facts()))


@st.composite
def rows(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Any table of up to four rows; later rows may take their pairs from earlier ones."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(draw(st.integers(0, 4))):
        row: dict[str, Any] = {"partition.num_parts": draw(st.sampled_from([1, 2, 5]))}
        row["equal"] = draw(st.sampled_from(["updates-per-student", "total-updates", "total-images"]))
        row["batch"] = draw(st.sampled_from(["whole", "share"]))
        if found and draw(st.booleans()):
            row["pairs.source"] = draw(st.sampled_from(sorted(found)))
        if draw(st.booleans()):
            row["dm.regression.weight"] = draw(st.sampled_from([0.0, 2.0]))
        found[f"row-{number}"] = row
    return found


@given(rows())
def test_every_need_exists_and_comes_first(table: dict[str, dict[str, Any]]) -> None:
    found = planned(rows=table)
    place = {job.key: index for index, job in enumerate(found.jobs)}
    assert (
        len(place) == len({job.name for job in found.jobs}) == len({job.task.hash for job in found.jobs}) == len(found.jobs)
    )
    for job in found.jobs:
        assert all(place[need] < place[job.key] for need in job.needs.values())
    for row in found.rows:
        assert len(row.jobs) == row.partition.num_parts
        assert all(key in place for key in row.jobs)
        assert {job.key for job in found.closure(row.jobs)} >= set(row.jobs)


@given(rows())
def test_the_same_recipe_gives_the_same_hashes_wherever_the_teacher_lies(table: dict[str, dict[str, Any]]) -> None:
    here = plan(recipe(rows=table), Inputs(teacher_facts()))
    there = plan(recipe(rows=table, device="cuda", fleet={"threads": 2}), Inputs(teacher_facts(folder="elsewhere")))
    assert [job.key for job in here.jobs] == [job.key for job in there.jobs]
    assert [row.jobs for row in here.rows] == [row.jobs for row in there.rows]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"dm": {**BASE["dm"], "learning_rate": 1e-5}},
        {"student": {"sigma_init": 3.0}},
        {"pairs": {"num_pairs": 401}},
        {"partition": {"num_parts": 5}},
    ],
)
def test_any_change_of_content_changes_the_students(change: dict[str, Any]) -> None:
    before, after = planned(), planned(**change)
    assert not set(before.main.jobs) & set(after.main.jobs)


def test_another_teacher_is_another_task() -> None:
    other = replace(teacher_facts(), hash="f" * 64)
    assert not {job.key for job in planned().jobs} & {job.key for job in plan(recipe(), Inputs(other)).jobs}


def test_a_partition_file_edited_in_place_is_another_partition(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    section = {"method": "file", "file": str(path)}
    path.write_text("parts: [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]")
    before = planned(partition=section)
    path.write_text("parts: [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]")
    after = planned(partition=section)
    assert not set(before.main.jobs) & set(after.main.jobs)
    assert set(before.rows[0].jobs) == set(after.rows[0].jobs)  # the single student owns everything either way
    path.unlink()
    with pytest.raises(PartitionError, match="does not exist"):
        planned(partition=section)


def test_it_does_not_matter_how_a_partition_was_found(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("parts: [[4, 3, 2, 1, 0], [5, 6, 7, 8, 9]]")
    by_file = planned(partition={"method": "file", "file": str(path)}, rows={})
    assert by_file.main.jobs == planned(partition={"num_parts": 2}, rows={}).main.jobs


def test_the_queue_begins_with_the_longest_path() -> None:
    """Pairs first, as all wait for them; then the one student that takes as long as all others together."""
    found = planned()
    assert [job.name for job in found.jobs] == [
        "pairs", "single-equal-total", "single", "student-0", "student-1", "student-2", "student-3",
    ]  # fmt: skip
    assert cost(found.by_key[found.rows[1].jobs[0]]) == 4 * cost(found.by_key[found.main.jobs[0]])


def test_pairs_cost_what_their_solver_does() -> None:
    costs = {}
    for method in ("heun", "euler", "dpmpp2m"):
        found = planned(pairs={"num_pairs": 400, "solver": {"method": method, "num_steps": 5}})
        (costs[method],) = [cost(job) for job in found.jobs if isinstance(job.task, PairsTask)]
    assert costs == {"heun": 400 * 9, "euler": 400 * 5, "dpmpp2m": 400 * 5}


def stages(found: Plan, row: str) -> list[dict[str, Any]]:
    """The DM settings of a row's students."""
    chosen = next(one for one in found.rows if one.name == row)
    tasks = [found.by_key[key].task for key in chosen.jobs]
    assert all(isinstance(task, TrainTask) for task in tasks)
    return [task.stages[0].settings for task in tasks if isinstance(task, TrainTask)]


def test_rows_hold_equal_what_they_say() -> None:
    """Updates per student; total updates; total images at equal steps (the paper's); total images in small batches."""
    table = {
        "each": {"partition.num_parts": 1},
        "total": {"partition.num_parts": 1, "equal": "total-updates"},
        "paper": {"equal": "total-images", "batch": "share"},
        "rival": {"partition.num_parts": 1, "equal": "total-images", "batch": "share"},
    }
    found = planned(rows=table)
    seen = {
        name: [(s["num_updates"], s["batch_size"], s["regression"]["batch_size"]) for s in stages(found, name)]
        for name in table
    }
    assert seen == {
        "each": [(100, 16, 16)],
        "total": [(400, 16, 16)],
        "paper": [(400, 4, 4)] * 4,
        "rival": [(1600, 4, 4)],
    }
    images = {name: sum(updates * batch for updates, batch, _ in rows) for name, rows in seen.items()}
    assert images["total"] == images["paper"] == images["rival"] == 4 * 100 * 16


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"dm\.batch_size 18 cannot be shared by 4 parts"):
        planned(dm={**BASE["dm"], "batch_size": 18}, rows={"small": {"batch": "share"}})


def test_rows_share_jobs_that_are_the_same() -> None:
    found = planned(rows={"twin": {"dm.num_updates": 100}, "other": {"dm.num_updates": 50}})
    twin, other = found.rows[:2]
    assert twin.jobs == found.main.jobs
    assert not set(other.jobs) & set(twin.jobs)
    (pairs,) = [job for job in found.jobs if isinstance(job.task, PairsTask)]
    assert found.shared_by(pairs.key) == ("twin", "other", "cohort")


def test_pairs_of_a_row_wait_for_its_students() -> None:
    table = {"single": {"partition.num_parts": 1}, "after": {"pairs.source": "single", "dm.weight": 0}}
    found = planned(rows=table)
    single, after = found.rows[0], found.rows[1]
    (pairs_key,) = {found.by_key[key].needs["pairs"] for key in after.jobs}
    assert list(found.by_key[pairs_key].needs.values()) == list(single.jobs)
    assert {job.name for job in found.closure(after.jobs)} == {
        "pairs", "single", "pairs-of-single", "after-0", "after-1", "after-2", "after-3",
    }  # fmt: skip


def test_without_regression_no_pairs_are_made() -> None:
    found = planned(dm={**BASE["dm"], "regression": {"weight": 0}}, rows={})
    assert {job.name for job in found.jobs} == {"student-0", "student-1", "student-2", "student-3"}


@pytest.mark.parametrize(
    "sections",
    [
        {"dm": {**BASE["dm"], "batch_size": 30}},
        {"dm": {**BASE["dm"], "regression": {"batch_size": 30}}},
        {"rows": {"other": {"dm.batch_size": 30}}},
    ],
)
def test_a_batch_that_does_not_split_into_micro_batches_is_refused(sections: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"a batch of 30 cannot be split into 4 equal micro-batches; set fleet\.num_micro"):
        planned(fleet={"num_micro_batches": 4}, **sections)


def test_what_students_are_computed_in_is_part_of_what_they_are() -> None:
    """Rows may compare it; the pairs, which are float32 always, they share."""
    found = planned(rows={"rounded": {"precision": "bfloat16"}}, partition={"num_parts": 2})
    tasks = [job.training for job in found.jobs if isinstance(job.task, TrainTask)]
    assert {(task.part, task.precision) for task in tasks} == set(itertools.product((0, 1), ("float32", "bfloat16")))
    assert len({task.hash for task in tasks}) == len(tasks) == 4
    assert len([job for job in found.jobs if isinstance(job.task, PairsTask)]) == 1
    with pytest.raises(RecipeError, match=r"precision.*float16"):
        recipe(precision="float16")


def test_too_few_pairs_of_a_part_are_refused() -> None:
    dm = {**BASE["dm"], "regression": {"batch_size": 200, "own_share": 0.9}}
    with pytest.raises(DataError, match=r"part 0 will have about 120 pairs of its own, fewer than the 180 of a batch"):
        planned(dm=dm, partition={"num_parts": 4}, rows={})


@pytest.fixture
def start(tmp_path: Path, halves: Partition, teacher: Teacher) -> Path:
    """A student of the teacher fixture that knows the even classes."""
    return save_student(tmp_path / "start", halves, 0, teacher=teacher.hash)


def planned_from(start: Path, teacher: Teacher, **changes: Any) -> Plan:
    sections = {
        "student": {"start": str(start), "sigma_init": 2.5},
        "teacher": {"source": teacher.source},
        "partition": {"num_parts": 10},
        "rows": {},
    }
    chosen = recipe(**{**sections, **changes})
    return plan(chosen, read_inputs(chosen))


def test_a_start_must_fit(start: Path, teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="belongs to another partition: it never saw class 1, which part 1 owns"):
        planned_from(start, teacher)
    with pytest.raises(WeightsError, match="was distilled from teacher"):
        planned_from(save_student(tmp_path / "foreign", halves, 0), teacher)
    with pytest.raises(
        WeightsError, match=r"starts from noise level 2\.5, the recipe from 80\.0; set student\.sigma_init=2\.5"
    ):
        planned_from(start, teacher, student={"start": str(start)})
    with pytest.raises(WeightsError, match="holds no student"):
        planned_from(tmp_path, teacher)
    with pytest.raises(WeightsError, match="holds a teacher, not a student"):
        planned_from(Path(teacher.source), teacher)


def test_a_start_is_known_by_content(tmp_path: Path, teacher: Teacher) -> None:
    whole = Partition.whole(UNIFORM)
    one, same = (save_student(tmp_path / name, whole, 0, teacher=teacher.hash) for name in ("one", "same"))
    other = save_student(tmp_path / "other", whole, 0, teacher=teacher.hash, seed=7)
    keys = {path.name: planned_from(path, teacher).main.jobs for path in (one, same, other)}
    assert keys["one"] == keys["same"]
    assert not set(keys["one"]) & set(keys["other"])


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from msd.fleet.inputs import read_inputs; from msd.fleet.plan import plan\n"
        "from msd.recipe import load_recipe\n"
        "recipe = load_recipe('smoke')\n"
        "assert len(plan(recipe, read_inputs(recipe)).jobs) == 5\n"
        "sys.exit(str({'torch', 'diffusers'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
