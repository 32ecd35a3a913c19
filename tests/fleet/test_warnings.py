"""What a worker warns of reaches whoever gave the command, once, and whoever looks later, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import msd
from msd.commands.report import curves_of
from msd.commands.tables import job_table
from msd.errors import heard_by, warn
from msd.fleet.jobs import Status, read_status
from msd.fleet.progress import Progress
from msd.run import Run

EASY = (
    "distill", "smoke", "--set", "partition.num_parts=1", "--set", "rows={}", "--set", "stages=[adm]",
    "--set", "student.start=random",
    "--set", "adm.num_updates=60", "--set", "adm.discriminator_warmup=20", "--set", "adm.critic_turns=1",
    "--set", "adm.batch_size=16", "--set", "adm.regression.weight=0", "--set", "adm.discriminator_sigma_high=0.1",
    "--set", "adm.discriminator_learning_rate=0.01", "--set", "adm.learning_rate=0.00001",
    "--set", "fleet.checkpoint_every=10",
)  # fmt: skip
"""A student whose images anybody tells from real ones, a discriminator that sees them nearly without noise."""
WON = "the discriminator of stage adm has told real images from the student's in"


def test_a_discriminator_that_wins_is_told_of_by_the_command_the_status_and_the_page(
    trappable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("MSD_TRAP", "*/student-0-*/checkpoints/step-0000070.pt")  # right after it warned
    killed = msd(*EASY, "--out", run, code=1)
    assert killed.stderr.count(f"Warning: student-0: for 50 steps, to step 70, {WON}") == 1, killed.stderr
    monkeypatch.delenv("MSD_TRAP")
    resumed = msd(*EASY, "--out", run)
    assert resumed.stderr.count(WON) == 1
    shown = " ".join(msd("status", run).stdout.split())
    assert shown.count("Warning: student-0: for 50 steps") == 1
    (sentence,) = json.loads(msd("status", run, "--json").stdout)["jobs"]["student-0"]["warnings"]
    assert WON in sentence
    assert "lower adm.discriminator_learning_rate" in sentence
    (curve,) = curves_of(Run.open(run))
    assert curve.warnings == (sentence,)


def test_every_warning_of_a_worker_is_kept_once_and_survives_the_next_one(tmp_path: Path) -> None:
    for _ in range(2):
        progress = Progress(tmp_path, 10, [])
        progress.begin(0)
        with heard_by(progress.warn):
            warn("a file  was\nset aside.")
            assert read_status(tmp_path).warnings == ["a file was set aside."]  # at once: the next moment may be its last
        warn("nobody hears this.")
        progress.done()
    assert read_status(tmp_path).warnings == ["a file was set aside."]


def test_warnings_stand_under_the_live_table_after_the_errors() -> None:
    statuses = {"a": Status(state="running", warnings=["one.", "two."]), "b": Status(state="failed", error="it broke.")}
    said = str(job_table(statuses, {}, 140).caption)
    assert said.splitlines() == ["b: it broke.", "Warning: a: one.", "Warning: a: two."]
