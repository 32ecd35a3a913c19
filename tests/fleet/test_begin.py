"""What distillation began with can be had again afterwards, as long as what it is made from is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import train_job
from msd.conditions.partition import Partition
from msd.errors import WeightsError
from msd.fleet.begin import is_whole_teacher, prepared
from msd.fleet.jobs import START, Job, StageTask, TrainTask, read_result, student_folder
from msd.fleet.progress import Progress
from msd.fleet.training import train
from msd.networks.facts import read_facts
from msd.networks.folder import load_denoiser
from msd.recipe import DMSection, RegressionSection, TSMSection
from msd.teachers.folder import Teacher
from msd.training.engine import Engine

STILL = DMSection(
    num_updates=1,
    batch_size=4,
    learning_rate=1e-30,
    critic_learning_rate=1e-30,
    ema_decay=None,
    regression=RegressionSection(batch_size=4),
)
"""A distillation that changes nothing, so that its result is what it began with."""
TSM = StageTask(name="tsm", settings=TSMSection(num_updates=3, batch_size=8).model_dump(mode="json"))


def trained(
    jobs: Path, teacher: Teacher, halves: Partition, *before: StageTask, needs: str | None = None, **changes: Any
) -> tuple[Job, TrainTask, Path]:
    job = train_job(jobs, teacher, halves, 0, STILL)
    task = job.task
    assert isinstance(task, TrainTask)
    changes |= {"stages": (*before, *task.stages)}
    if needs:
        changes["start"] = (read_result(jobs / needs) or {})["task"]
    job = job.model_copy(
        update={
            "task": TrainTask.model_validate(task.model_dump() | changes),
            "needs": job.needs | ({START: needs} if needs else {}),
        }
    )
    assert isinstance(job.task, TrainTask)
    folder = jobs / job.key
    folder.mkdir(parents=True)
    job.save(folder)
    train(job, job.task, folder, Engine.on("cpu"), Progress(folder, job.num_steps, []))
    return job, job.task, folder


@pytest.mark.parametrize(
    ("before", "changes"),
    [((), {"reduce": 0.43}), ((), {"weights": "random"}), ((TSM,), {}), ((TSM,), {"weights": "random", "reduce": 0.43})],
)
def test_distillation_begins_with_what_is_rebuilt(
    tmp_path: Path, teacher: Teacher, halves: Partition, before: tuple[StageTask, ...], changes: dict[str, Any]
) -> None:
    job, task, folder = trained(tmp_path / "jobs", teacher, halves, *before, **changes)
    assert not is_whole_teacher(task)
    rebuilt, result = prepared(job, task, folder, teacher.denoiser), load_denoiser(student_folder(folder))
    assert rebuilt.spec == result.spec
    for one, other in zip(rebuilt.parameters(), result.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    stages = read_facts(student_folder(folder))["stages"]
    assert [stage["stage"] for stage in stages] == [*("tsm" for _ in before), "dm"]
    assert all(stage["num_flops"] > 0 for stage in stages)


def test_a_copy_of_the_teacher_is_one(tmp_path: Path, teacher: Teacher, halves: Partition) -> None:
    _, task, _ = trained(tmp_path / "jobs", teacher, halves)
    assert is_whole_teacher(task)


def test_a_start_that_is_gone_or_another_one_is_named(tmp_path: Path, teacher: Teacher, halves: Partition) -> None:
    jobs = tmp_path / "jobs"
    first = trained(jobs, teacher, halves, reduce=0.43)[0]
    job, task, folder = trained(jobs, teacher, halves, needs=first.key)
    assert not is_whole_teacher(task)
    assert prepared(job, task, folder, teacher.denoiser).num_parameters() < teacher.denoiser.num_parameters()
    shutil.rmtree(jobs / first.key)
    with pytest.raises(WeightsError, match="holds no student"):
        prepared(job, task, folder, teacher.denoiser)


def test_a_stage_that_handed_nothing_on_any_more_is_named(tmp_path: Path, teacher: Teacher, halves: Partition) -> None:
    job, task, folder = trained(tmp_path / "jobs", teacher, halves, TSM)
    (folder / "stages" / "0-tsm" / "bundle.safetensors").unlink()
    with pytest.raises(WeightsError, match="bundle"):
        prepared(job, task, folder, teacher.denoiser)
