"""What a row's students took: what they started from counts once, and a stage that ended early as long as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import UNIFORM, tiny_denoiser
from msd.conditions.partition import Partition
from msd.errors import WeightsError
from msd.fleet.accounts import account
from msd.fleet.jobs import PAIRS, START, Job, PairsTask, StageTask, Status, TrainTask, student_folder, student_use
from msd.fleet.stored import StoredRow
from msd.networks.folder import save_denoiser
from msd.recipe import DMSection, TSMSection

TSM = StageTask(name="tsm", settings=TSMSection(num_updates=50, batch_size=10).model_dump(mode="json"))
DM = StageTask(name="dm", settings=DMSection(num_updates=20, batch_size=4).model_dump(mode="json"))
HALVES = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)


def trained(
    jobs: Path,
    name: str,
    part: int,
    *stages: tuple[StageTask, int],
    needs: dict[str, str] | None = None,
    began: float = 100.0,
    counted: bool = True,
    start: str | None = None,
    **task: object,
) -> str:
    """A finished training, with the updates that each of its stages really had; returns its key."""
    planned = TrainTask(
        seed=part, stages=tuple(stage for stage, _ in stages), teacher="a", partition=HALVES.to_json(), part=part, **task
    )  # pyright: ignore[reportArgumentType]
    job = Job(name=name, task=planned, needs=needs or {}, start=start)
    folder = jobs / job.key
    student_folder(folder).mkdir(parents=True)
    told = [{"stage": stage.name, "num_updates": num, "seed": 0} for stage, num in stages]
    if counted:
        told = [one | {"num_flops": 1000 * one["num_updates"]} for one in told]
    save_denoiser(tiny_denoiser(part, sigma_init=2.5), student_folder(folder), role="student", stages=told)
    job.save(folder)
    Status("done", seconds=10.0, started=began).write(folder)
    return job.key


def row(*keys: str) -> StoredRow:
    return StoredRow(name="cohort", note="two", equal=None, jobs=keys)


def test_a_shared_start_counts_once(tmp_path: Path) -> None:
    shared = trained(tmp_path, "tsm", 0, (TSM, 30))
    keys = [trained(tmp_path, f"student-{part}", part, (DM, 20), needs={START: shared}) for part in range(2)]
    found = account(tmp_path, row(*keys))
    assert found["num_updates"] == 30 + 20
    assert found["total_updates"] == 30 + 2 * 20
    assert found["total_images"] == 30 * 10 + 2 * 20 * 4
    assert (found["num_students"], found["batch_size"]) == (2, 4)
    assert found["training_seconds"] == 30.0
    assert found["stages"] == [
        {"stage": "tsm", "num_updates": 30, "batch_size": 10, "own": True},
        {"stage": "dm", "num_updates": 20, "batch_size": 4, "own": True},
    ]
    single = (student_folder(tmp_path / keys[0]) / "diffusion_pytorch_model.safetensors").stat().st_size
    assert found["cohort_bytes"] == 2 * single
    assert found["cohort_parameters"] == 2 * tiny_denoiser(0).num_parameters()
    assert found["training_flops"] == 1000 * (30 + 2 * 20)


def test_the_students_whose_samples_are_the_pairs_count_too(tmp_path: Path) -> None:
    """A teacher of one step had to be trained before anybody could be regressed on its samples."""
    full = trained(tmp_path, "full-single", 0, (DM, 20))
    task = PairsTask(seed=0, teacher="a", num_pairs=60, shard_size=60, prior=UNIFORM, students=("one",))
    pairs = Job(name="pairs-of-full-single", task=task, needs={student_use(0): full})
    (tmp_path / pairs.key).mkdir()
    pairs.save(tmp_path / pairs.key)
    keys = [trained(tmp_path, f"post-distilled-{part}", part, (DM, 15), needs={PAIRS: pairs.key}) for part in range(2)]
    found = account(tmp_path, row(*keys))
    assert found["num_updates"] == 15
    assert found["total_updates"] == 20 + 2 * 15
    assert found["training_flops"] == 1000 * (20 + 2 * 15)
    assert found["training_seconds"] == 30.0
    assert found["lineage"] == "the teacher"


def test_each_part_s_own_stages_count_for_each(tmp_path: Path) -> None:
    """The first ended on a plateau, the second did not."""
    keys = [
        trained(tmp_path, f"student-{part}", part, (TSM, num), (DM, 20), weights="random")
        for part, num in ((0, 20), (1, 50))
    ]
    found = account(tmp_path, row(*keys))
    assert found["total_updates"] == (20 + 20) + (50 + 20)
    assert found["total_images"] == 20 * 10 + 50 * 10 + 2 * 20 * 4
    assert found["lineage"] == "random weights"


def test_a_copy_of_the_teacher_is_called_so(tmp_path: Path) -> None:
    found = account(tmp_path, row(trained(tmp_path, "student", 0, (DM, 20))))
    assert found["lineage"] == "the teacher"


def test_a_lineage_is_said_in_words(tmp_path: Path) -> None:
    def lineage(key: str) -> str:
        return account(tmp_path, row(key))["lineage"]

    cut = trained(tmp_path, "tsm", 0, (TSM, 30), reduce=0.42)
    assert lineage(cut) == "slices of the teacher"
    assert lineage(trained(tmp_path, "student", 0, (DM, 20), needs={START: cut})) == lineage(cut)
    assert lineage(trained(tmp_path, "r", 0, (TSM, 9), (DM, 20), weights="random")) == "random weights"
    small = trained(tmp_path, "s", 0, (DM, 20), weights="random", reduce=0.71)
    assert lineage(small) == "random weights"
    whole = trained(tmp_path, "single", 0, (DM, 20))
    assert lineage(trained(tmp_path, "on", 0, (DM, 20), needs={START: whole})) == "the student single"
    pruned = trained(tmp_path, "pruned", 0, (DM, 20), needs={START: whole}, reduce=0.42)
    assert lineage(pruned) == "slices of the student single"
    assert [stage["own"] for stage in account(tmp_path, row(pruned))["stages"]] == [False, True]
    assert lineage(trained(tmp_path, "saved", 0, (DM, 20), start="elsewhere")) == "a saved student"


def test_arithmetic_that_was_not_counted_stays_open(tmp_path: Path) -> None:
    old = trained(tmp_path, "tsm", 0, (TSM, 30), counted=False)
    new = trained(tmp_path, "student", 0, (DM, 20), needs={START: old})
    assert account(tmp_path, row(new))["training_flops"] is None


def test_a_lost_status_leaves_times_open(tmp_path: Path) -> None:
    found = account(tmp_path, row(trained(tmp_path, "student", 0, (DM, 20), began=0.0)))
    assert found["training_seconds"] is found["training_wall_seconds"] is None


def test_a_student_that_is_gone_is_named(tmp_path: Path) -> None:
    key = trained(tmp_path, "student", 0, (DM, 20))
    (student_folder(tmp_path / key) / "denoiser.json").unlink()
    with pytest.raises(WeightsError, match=r"denoiser\.json"):
        account(tmp_path, row(key))
