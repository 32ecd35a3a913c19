"""What a worker tells: its speed is of what it did itself, in steps and in images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from msd.commands import console
from msd.commands.console import Output, how_far
from msd.fleet.jobs import Status, read_status
from msd.fleet.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def told(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_shards_that_were_found_done_are_no_work(tmp_path: Path, clock: list[float]) -> None:
    progress = Progress(tmp_path, 1000, [])
    progress.begin(0, "pairs")
    for done in (250, 500):
        progress.skip(done)
    clock[0] += 10
    progress(600)
    assert (told(tmp_path)["step"], told(tmp_path)["steps_per_second"], told(tmp_path)["images_per_second"]) == (600, 10, 10)
    progress.skip(700)
    clock[0] += 10
    progress(800)
    status = Status(**told(tmp_path))
    assert (status.step, status.images_per_second, status.seconds_left) == (800, 10, 20)


def test_images_are_counted_by_the_batch_of_each_stage(tmp_path: Path, clock: list[float]) -> None:
    progress = Progress(tmp_path, 100, [])
    progress.begin(20, "tsm", batch_size=8)  # goes on after 20 steps
    clock[0] += 1
    progress(30)
    progress.begin(50, "dm", batch_size=32)  # the first stage ended early
    clock[0] += 1
    progress(60)
    assert (told(tmp_path)["steps_per_second"], told(tmp_path)["images_per_second"]) == (10, (10 * 8 + 10 * 32) / 2)
    progress.done()
    assert read_status(tmp_path).images_per_second == 200


def test_a_log_says_once_a_minute_how_far_a_job_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(
        state="running", step=5000, num_steps=25000, stage="pairs", steps_per_second=12.5, images_per_second=12.5
    )
    with Output().live_jobs({"pairs": ""}) as on_change:
        for _ in range(5):
            on_change({"pairs": status})
            clock[0] += console.TELL_EVERY / 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["pairs: running"] + ["pairs: 5,000 of 25,000 (pairs), 12.5 pairs a second, 27m left"] * 2
    assert how_far(
        Status(state="running", step=1, num_steps=3, stage="dm", steps_per_second=0.1, images_per_second=3.2)
    ) == ("1 of 3 (dm), 3.2 images a second, 20s left")
