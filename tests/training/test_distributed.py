"""Two processes with half the batch each are one process with all of it; a training may move between the two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from builders import UNIFORM, save_teacher, train_job
from msd.conditions.partition import Partition
from msd.fleet.jobs import Job, read_status, result_folder
from msd.recipe import DMSection, RegressionSection
from msd.training.bundle import Bundle
from msd.training.records import read_records

HALVES = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM, method="file")
DM = DMSection(
    num_updates=20,
    batch_size=256,
    critic_turns=2,
    warmup_updates=2,
    regression=RegressionSection(batch_size=256, head_start=0.2, own_share=0.5),
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """A job, and the folder in which one process did it undisturbed."""
    folder = tmp_path_factory.mktemp("alone")
    job = train_job(folder / "jobs", save_teacher(folder / "teacher"), HALVES, 0, DM)
    finish(launch(job, folder / "jobs", 1))
    return job, folder / "jobs"


def launch(job: Job, jobs: Path, processes: int) -> subprocess.Popen[bytes]:
    folder = jobs / job.key
    folder.mkdir(parents=True, exist_ok=True)
    job.save(folder)
    module = ["-m", "msd.fleet.worker", str(folder)]
    if processes > 1:
        port = 29500 + os.getpid() % 2000
        module = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}", *module]
    return subprocess.Popen([sys.executable, *module], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> str:
    errors = process.communicate(timeout=240)[1].decode()
    assert process.returncode == 0, errors
    return errors


def copy_of(job: Job, jobs: Path, other: Path) -> Path:
    """Another folder of jobs with the same pairs."""
    shutil.copytree(jobs / job.needs["pairs"], other / job.needs["pairs"])
    return other


def compare(job: Job, one: Path, two: Path) -> None:
    """Losses and every weight of every role, raw and averaged, to float rounding."""
    records = [read_records(next((jobs / job.key).glob("stages/*/records.jsonl"))) for jobs in (one, two)]
    assert [record["step"] for record in records[0]] == [record["step"] for record in records[1]] == list(range(1, 21))
    for mine, theirs in zip(*records, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name] == pytest.approx(theirs[name], rel=2e-3, abs=2e-5), (mine["step"], name)
    bundles = [Bundle.load(result_folder(jobs / job.key) / "bundle.safetensors") for jobs in (one, two)]
    for name, role in bundles[0].roles.items():
        for kind in ("raw", "average"):
            mine, theirs = getattr(role, kind) or {}, getattr(bundles[1].roles[name], kind) or {}
            for tensor in mine:
                torch.testing.assert_close(mine[tensor], theirs[tensor], rtol=1e-3, atol=2e-5)


def test_two_processes_give_the_losses_and_weights_of_one(alone: tuple[Job, Path], tmp_path: Path) -> None:
    job, one = alone
    two = copy_of(job, one, tmp_path / "jobs")
    finish(launch(job, two, 2))
    compare(job, one, two)


@pytest.mark.parametrize(("processes", "num_micro_batches"), [(1, 4), (2, 2)])
def test_a_batch_in_parts_gives_the_losses_and_weights_of_all_at_once(
    alone: tuple[Job, Path], tmp_path: Path, processes: int, num_micro_batches: int
) -> None:
    job, one = alone
    two = copy_of(job, one, tmp_path / "jobs")
    resources = job.resources.model_copy(update={"num_micro_batches": num_micro_batches})
    finish(launch(job.model_copy(update={"resources": resources}), two, processes))
    compare(job, one, two)


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_a_training_stopped_on_some_processes_goes_on_on_others(
    alone: tuple[Job, Path], tmp_path: Path, first: int, second: int
) -> None:
    """SIGTERM in mid-training, then another number of processes: the training of one that was left alone."""
    job, whole = alone
    moved = copy_of(job, whole, tmp_path / "jobs")
    process = launch(job, moved, first)
    status = moved / job.key / "status.json"
    while process.poll() is None and not (status.exists() and json.loads(status.read_text())["step"] >= 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    stopped = read_status(moved / job.key)
    if stopped.state != "stopped":  # twenty steps are short: it may have been done before it listened
        pytest.fail(f"the training was {stopped.state} before it could be stopped")
    assert 0 < stopped.step < 20
    finish(launch(job, moved, second))
    compare(job, whole, moved)


def test_more_processes_than_the_batch_divides_by_are_refused(alone: tuple[Job, Path], tmp_path: Path) -> None:
    job, jobs = alone[0], copy_of(*alone, tmp_path / "jobs")
    process = launch(job, jobs, 3)
    process.communicate(timeout=240)
    assert process.returncode != 0
    assert "a batch of 256 cannot be shared equally by 3 processes" in read_status(jobs / job.key).error
