"""`msd plan`: what each training needs, for people and as plain values, without any weights of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.commands.console import Output
from msd.commands.plan import show_plan
from msd.recipe import Recipe, load_recipe

GPUS = {"24", "40", "80", "141"}


def planned(recipe: Recipe):
    return show_plan(recipe, Output(json_only=True))


def test_a_small_recipe_fits_everywhere_and_no_record_tells_its_hours() -> None:
    found = planned(load_recipe("smoke", ["rows=[]"]))
    [stage] = found["needs"]["stages"]
    assert stage["jobs"] == ["student-0", "student-1"]
    assert (stage["stage"], stage["batch_size"], stage["num_micro_batches"]) == ("dm", 8, 1)
    assert {role: stage["parameters"][role] for role in ("teacher", "student", "critic")} == dict.fromkeys(
        ("teacher", "student", "critic"), 173857
    )
    sizes = stage["bytes"]
    assert sizes["teacher"] == sizes["student"] == sizes["averages"] - 8 == 4 * 173857  # an average counts its updates
    assert sizes["peak"] <= sum(size for part, size in sizes.items() if part != "peak")
    assert {name: gpu["fits"] for name, gpu in stage["gpus"].items()} == dict.fromkeys(GPUS, True)
    assert stage["gpu_hours"] is None
    assert found["needs"]["pairs"] == [{"job": "pairs", "num_pairs": 128, "bytes": 128 * (2 * 4 * 64 + 8)}]
    assert all(job["key"] for job in found["jobs"])


def test_a_teacher_that_the_run_trains_is_told_of_too() -> None:
    found = planned(load_recipe("smoke", ["rows=[]", "teacher.source=pretrain"]))
    teacher, student = found["needs"]["stages"]
    assert (teacher["jobs"], teacher["stage"], list(teacher["parameters"])) == (["teacher"], "pretrain", ["teacher"])
    assert student["parameters"]["teacher"] == teacher["parameters"]["teacher"]


def test_the_papers_scale_is_planned_from_a_blueprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is there: DM of the smallest students, what it takes by part, and where it fits in how large parts."""
    monkeypatch.chdir(tmp_path)
    found = planned(load_recipe("imagenet64-small-71", ["rows=[]", "stages=[dm]"]))
    [stage] = found["needs"]["stages"]
    assert stage["parameters"] == {"teacher": 295_899_267, "student": 85_943_555, "critic": 295_899_267}
    assert stage["bytes"]["optimisers"] == 8 * (295_899_267 + 85_943_555)
    [pairs] = found["needs"]["pairs"]
    assert pairs["bytes"] == 25_000 * (2 * 4 * 3 * 64 * 64 + 8)
    assert stage["bytes"]["data"] < 1000  # they are read from disk, a batch at a time
    assert all(gpu["micro_batch"] for gpu in stage["gpus"].values())
    assert stage["gpus"]["80"]["fits"]
    assert stage["gpu_hours"] > 1
    assert all(job["key"] is None and job["hash"] is None for job in found["jobs"])
    assert "edm-imagenet-64x64-cond-adm.pkl is not there" in found["needs"]["notes"][0]
    assert not any(tmp_path.iterdir())
