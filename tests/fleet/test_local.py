"""Jobs as processes: one that fails stops only what needs it, a stopped one goes on, and the table tells the truth."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from builders import train_job
from msd.checks import available_memory
from msd.conditions.partition import Partition
from msd.errors import RunError, StudentFailed
from msd.fleet.jobs import (
    STOPPED,
    Job,
    PairsTask,
    Resources,
    StageTask,
    Status,
    is_done,
    job_seed,
    read_status,
    result_folder,
)
from msd.fleet.local import num_fitting, run_jobs
from msd.networks.facts import read_facts
from msd.networks.folder import load_denoiser
from msd.owner import owned
from msd.recipe import DMSection, RegressionSection
from msd.teachers.folder import Teacher
from msd.training.bundle import Bundle

DM = DMSection(num_updates=4, batch_size=4, regression=RegressionSection(batch_size=4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def jobs(teacher: Teacher, halves: Partition, folder: Path) -> list[Job]:
    return [train_job(folder, teacher, halves, part, DM, checkpoint_every=2) for part in range(2)]


@pytest.fixture
def pairs_job(teacher: Teacher) -> Job:
    solver = {"method": "euler", "num_steps": 2, "sigma_min": 0.002, "sigma_max": 80.0}
    task = PairsTask(seed=0, teacher=teacher.hash, num_pairs=20, shard_size=10, prior=(0.1,) * 10, solver=solver)
    return Job(name="pairs", task=task, teacher=teacher.source, resources=Resources(threads=0))


def test_one_failing_student_does_not_stop_the_other_and_can_be_retried(jobs: list[Job], folder: Path) -> None:
    broken = jobs[0].model_copy(update={"teacher": "nowhere"})
    with pytest.raises(StudentFailed, match=r"1 of 2 jobs failed \(student-0: the teacher nowhere is not there"):
        run_jobs([broken, jobs[1]], folder, max_parallel=1)
    assert read_status(folder / broken.key).state == "failed"
    assert is_done(jobs[1], folder / jobs[1].key)
    run_jobs(jobs, folder, max_parallel=2)
    assert is_done(jobs[0], folder / jobs[0].key)
    student = result_folder(folder / jobs[0].key) / "student"
    assert load_denoiser(student).spec.sigma_init == jobs[0].task.sigma_init
    assert read_facts(student)["task"] == jobs[0].task.hash


def test_a_failed_job_stops_only_what_needs_it(pairs_job: Job, jobs: list[Job], folder: Path) -> None:
    """Pairs that cannot be made take their student along; a student with other pairs is trained all the same."""
    broken = pairs_job.model_copy(update={"teacher": "nowhere"})
    dependent = jobs[0].model_copy(update={"needs": {"pairs": broken.key}})
    with pytest.raises(StudentFailed, match=r"2 of 3 jobs failed \(pairs: .*; student-0: it needs pairs\)"):
        run_jobs([broken, dependent, jobs[1]], folder, max_parallel=2)
    assert read_status(folder / dependent.key).error == "it needs pairs, which failed"
    assert read_status(folder / jobs[1].key).state == "done"


def test_what_is_needed_is_made_first(pairs_job: Job, jobs: list[Job], folder: Path) -> None:
    dependent = jobs[0].model_copy(update={"needs": {"pairs": pairs_job.key}})
    run_jobs([dependent, pairs_job], folder, max_parallel=2)
    assert is_done(dependent, folder / dependent.key)
    assert read_status(folder / pairs_job.key).step == 20


def test_a_stopped_worker_saves_and_goes_on_to_the_same_student(
    teacher: Teacher, halves: Partition, tmp_path: Path, folder: Path
) -> None:
    """SIGTERM in mid-training, then the same job again: bit for bit the student of an undisturbed one."""
    settings = DM.model_copy(update={"num_updates": 60})
    job = train_job(folder, teacher, halves, 0, settings)
    undisturbed = tmp_path / "undisturbed"
    train_job(undisturbed, teacher, halves, 0, settings)
    run_jobs([job], undisturbed, max_parallel=1)

    place = folder / job.key
    place.mkdir(parents=True)
    job.save(place)
    worker = subprocess.Popen([sys.executable, "-m", "msd.fleet.worker", str(place)], env=os.environ)
    while read_status(place).step < 2 and worker.poll() is None:
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == STOPPED
    status = read_status(place)
    assert status.state == "stopped"
    assert 1 <= status.step < 60
    run_jobs([job], folder, max_parallel=1)
    ours, theirs = (load_denoiser(result_folder(base / job.key) / "student") for base in (folder, undisturbed))
    for before, after in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(before, after)
    assert not list(place.rglob("checkpoints*"))


def test_stages_are_folded_each_from_the_bundle_before(teacher: Teacher, halves: Partition, folder: Path) -> None:
    """Two stages in one job: the second begins with student and critic as the first left them, and a resume skips it."""
    one = train_job(folder, teacher, halves, 0, DM)
    still = DM.model_copy(update={"num_updates": 1, "learning_rate": 1e-30, "critic_learning_rate": 1e-30}).model_dump(
        mode="json"
    )
    stages = (*one.task.stages, StageTask(name="dm", settings=still))
    two = one.model_copy(update={"task": one.task.model_copy(update={"stages": stages})})
    assert two.num_steps == 5
    run_jobs([one, two], folder, max_parallel=2)
    first, last = (Bundle.load(result_folder(folder / job.key) / "bundle.safetensors") for job in (one, two))
    handed = Bundle.load(folder / two.key / "stages" / "0-dm" / "bundle.safetensors")
    for role in ("student", "critic"):
        for tensor, value in first.roles[role].raw.items():
            assert torch.equal(handed.roles[role].raw[tensor], value)
            torch.testing.assert_close(last.roles[role].raw[tensor], value, rtol=0, atol=1e-6)
    facts = read_facts(result_folder(folder / two.key) / "student")
    assert [stage["num_updates"] for stage in facts["stages"]] == [4, 1]
    shutil.rmtree(result_folder(folder / two.key))
    run_jobs([two], folder, max_parallel=1)
    again = Bundle.load(result_folder(folder / two.key) / "bundle.safetensors")
    assert all(torch.equal(again.roles["student"].raw[name], value) for name, value in last.roles["student"].raw.items())
    assert read_facts(result_folder(folder / two.key) / "student")["stages"] == facts["stages"]


def test_a_vanished_process_is_reported_as_failed(tmp_path: Path) -> None:
    Status(state="running").write(tmp_path)
    status = read_status(tmp_path)
    assert status.state == "failed"
    assert "ended without a word" in status.error


def test_a_job_in_other_hands_is_left_alone(jobs: list[Job], folder: Path) -> None:
    with owned(folder / jobs[0].key, "torchrun"):
        Status(state="running").write(folder / jobs[0].key)
        assert read_status(folder / jobs[0].key).state == "running"
        with pytest.raises(RunError, match=rf"student-0-.* is in use by torchrun \(process {os.getpid()}"):
            run_jobs(jobs[:1], folder, max_parallel=1)


def test_finished_jobs_are_not_run_again_but_damaged_ones_are(jobs: list[Job], folder: Path) -> None:
    job = jobs[0]
    run_jobs([job], folder, max_parallel=1)
    weights = result_folder(folder / job.key) / "student" / "diffusion_pytorch_model.safetensors"
    before, content = weights.stat().st_mtime_ns, weights.read_bytes()
    for name in ("job.json", "status.json"):
        (folder / job.key / name).write_text("{")
    run_jobs([job], folder, max_parallel=1)
    assert weights.stat().st_mtime_ns == before
    assert Job.load(folder / job.key) == job
    assert read_status(folder / job.key).state == "done"
    weights.write_bytes(content[:-5])
    assert not is_done(job, folder / job.key)
    run_jobs([job], folder, max_parallel=1)
    assert weights.read_bytes() == content


def test_a_status_that_says_done_does_not_make_it_so(jobs: list[Job], folder: Path) -> None:
    place = folder / jobs[0].key
    place.mkdir(parents=True)
    Status(state="done", step=4, num_steps=4).write(place)
    assert not is_done(jobs[0], place)


def test_divergence_ends_in_failure_and_saves_nothing(teacher: Teacher, halves: Partition, folder: Path) -> None:
    """A learning rate of 1e30 used to end "done" with weights that are no numbers, if it was resumed often enough."""
    settings = DM.model_copy(update={"num_updates": 60, "learning_rate": 1e30, "warmup_updates": 0})
    job = train_job(folder, teacher, halves, 0, settings, checkpoint_every=1)
    for _ in range(2):
        with pytest.raises(StudentFailed, match=r"not finite|non-finite"):
            run_jobs([job], folder, max_parallel=1)
    assert not result_folder(folder / job.key).exists()


def test_a_job_survives_its_file(jobs: list[Job], folder: Path) -> None:
    (folder / jobs[0].key).mkdir(parents=True)
    jobs[0].save(folder / jobs[0].key)
    assert Job.load(folder / jobs[0].key) == jobs[0]


def test_a_job_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"name": "student-0", "part": 0}')
    with pytest.raises(RunError, match=r"job\.json is not a job \(it says no schema\); remove it and give the command"):
        Job.load(tmp_path)


def test_seeds_differ_by_part_and_are_stable() -> None:
    assert job_seed(0, 1) == job_seed(0, 1)
    assert len({job_seed(seed, part) for seed in (0, 1) for part in range(3)}) == 6


def test_at_least_one_worker_fits() -> None:
    assert num_fitting(10**15, threads=1, device="cpu") == 1
    assert num_fitting(10**5, threads=10**6, device="cpu") == 1
    assert num_fitting(10**5, threads=1, device="cuda") == 1


def test_memory_counts_caches_that_can_be_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    available = available_memory()
    if Path("/proc/meminfo").exists():
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        assert available is not None
        assert available >= int(fields["MemFree"].split()[0]) * 1024 * 0.9
    else:
        assert available is None
