"""Processes end with what started them, whatever ends it, and two commands never work in one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import train_job
from command import MSD
from msd.conditions.partition import Partition
from msd.fleet.jobs import JOB, LOG, is_done, read_status
from msd.fleet.workers import Launcher
from msd.owner import OWNER, owner_of
from msd.recipe import DMSection, RegressionSection
from msd.teachers.folder import Teacher

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
ARGUMENTS = ["distill", "smoke", "--set", "dm.num_updates=5000", "--set", "rows={}", "--set", "pairs.num_pairs=200"]
DM = DMSection(num_updates=3, batch_size=4, regression=RegressionSection(batch_size=4))
LONG = DM.model_copy(update={"num_updates": 100_000})


def started_in(folder: Path) -> list[int]:
    """Our launchers and workers whose working directory is `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if b"msd.fleet" in (entry / "cmdline").read_bytes() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def command(folder: Path) -> subprocess.Popen[str]:
    """A long distillation in `folder`, which is also its working directory."""
    return subprocess.Popen(
        [*MSD, *ARGUMENTS, "--out", str(folder / "run")],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def training(folder: Path) -> bool:
    return any(read_status(path.parent).step > 0 for path in folder.glob(f"run/jobs/student-0-*/{JOB}"))


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_worker_outlives_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """In mid-training: a signal that can be heard saves first, one that cannot takes the workers along all the same."""
    process = command(tmp_path)
    until(lambda: training(tmp_path) or process.poll() is not None)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 1), errors
    until(lambda: not started_in(tmp_path), seconds=5)
    (student,) = [path.parent for path in tmp_path.glob(f"run/jobs/student-0-*/{JOB}")]
    if number != signal.SIGKILL:
        assert read_status(student).state == "stopped"
        assert list(student.glob("stages/*/checkpoints/step-*.pt"))
        assert not list(tmp_path.rglob(OWNER))


@LINUX
def test_a_crash_of_a_worker_is_named_and_its_log_says_where(tmp_path: Path) -> None:
    process = command(tmp_path)
    until(lambda: training(tmp_path) or process.poll() is not None)
    (student,) = [path.parent for path in tmp_path.glob(f"run/jobs/student-0-*/{JOB}")]
    owner = owner_of(student)
    assert owner is not None
    os.kill(owner.pid, signal.SIGSEGV)  # as a library's own fault would
    ending = f"its process was ended by SIGSEGV (where, if a library crashed: {student / LOG})"
    assert process.stderr is not None
    shown = next((line for line in process.stderr if line.startswith("student-0: failed")), "")
    process.kill()
    process.communicate()
    assert ending in shown
    assert "Fatal Python error" in (student / LOG).read_text()


@LINUX
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_stop_right_at_a_launch_leaves_no_process(tmp_path: Path, delay: float) -> None:
    process = command(tmp_path)
    until(lambda: list(tmp_path.glob(f"run/jobs/pairs-*/{JOB}")) or process.poll() is not None)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    until(lambda: not started_in(tmp_path), seconds=5)


def test_a_second_command_on_a_run_is_told_of_the_first(tmp_path: Path) -> None:
    first = command(tmp_path)
    until(lambda: (tmp_path / "run" / OWNER).exists() or first.poll() is not None)
    second = subprocess.run(first.args, cwd=tmp_path, capture_output=True, text=True, check=False)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert f"is in use by msd distill (process {first.pid} on" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


@pytest.fixture
def launcher():
    made = Launcher()
    yield made
    made.close()


@pytest.mark.parametrize("fork", [True, False])
def test_a_worker_is_the_same_forked_or_new(
    launcher: Launcher, teacher: Teacher, halves: Partition, tmp_path: Path, fork: bool
) -> None:
    job = train_job(tmp_path / "jobs", teacher, halves, 0, DM)
    place = tmp_path / "jobs" / job.key
    place.mkdir(parents=True)
    job.save(place)
    worker = launcher.start(place, dict(os.environ), fork=fork)
    assert worker.wait(60) == 0
    assert is_done(job, place)


@LINUX
def test_a_launcher_whose_command_is_gone_does_not_begin() -> None:
    """Not even with a request in its pipe, for which it would import torch first."""
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    command = [sys.executable, "-m", "msd.fleet.launcher", str(nobody.pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 1  # its input is still open


@LINUX
def test_workers_go_with_a_killed_launcher_and_the_command_notices(
    launcher: Launcher, teacher: Teacher, halves: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = train_job(tmp_path / "jobs", teacher, halves, 0, LONG)
    place = tmp_path / "jobs" / job.key
    place.mkdir(parents=True)
    job.save(place)
    worker = launcher.start(place, dict(os.environ), fork=True)
    until(lambda: read_status(place).step > 0)
    (parent,) = [number for number in started_in(tmp_path) if number != worker.pid]
    os.kill(parent, signal.SIGKILL)
    assert worker.wait(10) == -signal.SIGKILL
    until(lambda: not started_in(tmp_path), seconds=5)
    assert read_status(place).state == "failed"
