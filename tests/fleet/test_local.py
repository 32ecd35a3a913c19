"""Jobs as processes: one that fails does not stop the others, a stopped one goes on, and the table tells the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from msd.conditions.partition import Partition
from msd.data.pairs import PairsPlan, make_pairs
from msd.diffusion.solvers import Solver
from msd.errors import RunError, StudentFailed
from msd.fleet.jobs import STOPPED, Job, Status, job_seed, read_status
from msd.fleet.local import is_done, num_fitting, run_jobs
from msd.networks.folder import load_denoiser
from msd.recipe import DMSection, RegressionSection
from msd.teachers.folder import Teacher


@pytest.fixture
def jobs(teacher: Teacher, halves: Partition, tmp_path: Path) -> list[Job]:
    make_pairs(teacher, tmp_path / "pairs", PairsPlan(20, 20, Solver("euler", 2), (0.1,) * 10, 0))
    settings = DMSection(num_updates=4, batch_size=4, regression=RegressionSection(batch_size=4))
    return [
        Job(
            name=f"student-{part}",
            folder=tmp_path / "jobs" / f"student-{part}",
            teacher=teacher.source,
            pairs=tmp_path / "pairs",
            partition=halves.to_json(),
            part=part,
            settings=settings,
            seed=part,
            device="cpu",
            threads=1,
            checkpoint_every=2,
        )
        for part in range(2)
    ]


def test_one_failing_student_does_not_stop_the_other_and_can_be_retried(jobs: list[Job]) -> None:
    broken = replace(jobs[0], teacher="nowhere")
    with pytest.raises(StudentFailed, match=r"1 of 2 jobs failed \(student-0: nowhere is not a teacher's folder"):
        run_jobs([broken, jobs[1]], max_parallel=1)
    assert read_status(broken.folder).state == "failed"
    assert is_done(jobs[1])
    run_jobs(jobs, max_parallel=2)
    assert is_done(jobs[0])
    assert load_denoiser(jobs[0].result).spec.sigma_init == jobs[0].sigma_init


def test_a_stopped_worker_saves_and_goes_on_to_the_same_student(jobs: list[Job], tmp_path: Path) -> None:
    """SIGTERM in mid-training, then the same job again: bit for bit the student of an undisturbed one."""
    job = replace(jobs[0], settings=jobs[0].settings.model_copy(update={"num_updates": 60}))
    undisturbed = replace(job, folder=tmp_path / "undisturbed")
    run_jobs([undisturbed], max_parallel=1)

    job.folder.mkdir(parents=True)
    job.save()
    worker = subprocess.Popen([sys.executable, "-m", "msd.fleet.worker", str(job.folder)], env=os.environ)
    while read_status(job.folder).step < 2 and worker.poll() is None:
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == STOPPED
    status = read_status(job.folder)
    assert status.state == "stopped"
    assert 2 <= status.step < 60
    run_jobs([job], max_parallel=1)
    ours, theirs = load_denoiser(job.result), load_denoiser(undisturbed.result)
    for before, after in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(before, after)


def test_a_vanished_process_is_reported_as_failed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    Status(state="running", pid=gone.pid).write(tmp_path)
    status = read_status(tmp_path)
    assert status.state == "failed"
    assert "ended without a word" in status.error


def test_a_job_in_other_hands_is_left_alone(jobs: list[Job]) -> None:
    jobs[0].folder.mkdir(parents=True)
    Status(state="running", pid=os.getpid()).write(jobs[0].folder)
    with pytest.raises(RunError, match=f"student-0 is already being trained by process {os.getpid()}"):
        run_jobs(jobs[:1], max_parallel=1)


def test_finished_jobs_are_not_run_again(jobs: list[Job]) -> None:
    run_jobs(jobs[:1], max_parallel=1)
    weights = jobs[0].result / "diffusion_pytorch_model.safetensors"
    before = weights.stat().st_mtime_ns
    run_jobs(jobs[:1], max_parallel=1)
    assert weights.stat().st_mtime_ns == before


def test_a_job_survives_its_file(jobs: list[Job]) -> None:
    jobs[0].folder.mkdir(parents=True)
    jobs[0].save()
    assert Job.load(jobs[0].folder) == jobs[0]


def test_seeds_differ_by_job_and_are_stable() -> None:
    assert job_seed(0, "student-0") == job_seed(0, "student-0")
    assert len({job_seed(seed, name) for seed in (0, 1) for name in ("student-0", "student-1", "single")}) == 6


def test_at_least_one_worker_fits() -> None:
    assert num_fitting(10**15, threads=1, device="cpu") == 1
    assert num_fitting(10**5, threads=10**6, device="cpu") == 1
    assert num_fitting(10**5, threads=1, device="cuda") == 1
