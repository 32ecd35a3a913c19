"""TSM, DM, ADM under SIGKILL: in each stage and at each seam a worker may die, and the training ends with the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command import fails, msd
from msd.owner import OWNER
from msd.training.bundle import Bundle

ARGUMENTS = (
    "distill", "smoke", "--students", "0", "--set", "rows={}", "--set", "pairs.num_pairs=64",
    "--set", "stages=[tsm,dm,adm]", "--set", "student.start=random", "--set", "student.reduce=0.71",
    "--set", "tsm.num_updates=5", "--set", "tsm.batch_size=8", "--set", "tsm.look_every=2",
    "--set", "adm.num_updates=4", "--set", "adm.discriminator_warmup=2", "--set", "adm.critic_turns=2",
    "--set", "adm.batch_size=8", "--set", "adm.regression.batch_size=8",
)  # fmt: skip
MOMENTS = {
    "in tsm, between a checkpoint and the list of them": "stages/0-tsm/checkpoints/step-*",
    "in dm": "stages/1-dm/checkpoints/checkpoints.json",
    "in adm": "stages/2-adm/checkpoints/step-0000004.pt",
    "after tsm's bundle, before it is said to be done": "stages/0-tsm/bundle.safetensors",
    "after dm is done, before its checkpoints go": "stages/1-dm/history.json",
    "after the result, before adm's checkpoints go": "result",
}
"""What came into place right before the kill, in the job's folder."""


@pytest.fixture(scope="module")
def base(trappable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    msd(*ARGUMENTS, "--out", folder)
    return folder


def content(run: Path) -> dict[str, bytes]:
    """All weights, and every step's losses."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in (*run.rglob("*.safetensors"), *run.rglob("records.jsonl"), *run.rglob("denoiser.json"))
    }


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_killed_there_costs_nothing(
    base: Path, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(base, run)
    (student,) = run.glob("jobs/student-0-*")
    shutil.rmtree(student)
    monkeypatch.setenv("MSD_TRAP", f"*/{student.name}/{MOMENTS[moment]}")
    assert "its process was killed" in fails(*ARGUMENTS, "--out", run, code=1)
    monkeypatch.delenv("MSD_TRAP")
    msd(*ARGUMENTS, "--out", run)
    assert content(run) == content(base)
    assert not [path for path in run.rglob("*") if path.name.startswith((".", "checkpoints", OWNER))]


def test_all_three_roles_come_out_of_adm(base: Path) -> None:
    (bundle,) = base.glob("jobs/student-0-*/result/bundle.safetensors")
    assert sorted(Bundle.load(bundle).roles) == ["critic", "discriminator", "student"]


def test_a_damaged_bundle_between_stages_is_made_again(base: Path, tmp_path: Path) -> None:
    """A bit of it is another, in a training that had not come to its end."""
    run = tmp_path / "run"
    shutil.copytree(base, run)
    (student,) = run.glob("jobs/student-0-*")
    shutil.rmtree(student / "result")
    bundle = student / "stages" / "0-tsm" / "bundle.safetensors"
    damaged = bytearray(bundle.read_bytes())
    damaged[-5] ^= 1
    bundle.write_bytes(damaged)
    msd(*ARGUMENTS, "--out", run)
    assert content(run) == content(base)
