"""A run that trains its own teacher: made first, by whatever needs it, once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from command import fails, msd
from msd.data import images as images_module
from msd.data.images import load_digits
from msd.networks.facts import denoiser_hash, read_facts
from msd.recipe import DIGITS

OWN = (
    "smoke", "--set", "teacher.source=pretrain", "--set", "rows={}", "--set", "pretrain.num_updates=2",
    "--set", "pretrain.batch_size=8", "--set", "network.fold=2", "--set", "data.prior=uniform",
    "--set", "pairs.num_pairs=32", "--set", "pairs.shard_size=32", "--set", "pairs.solver.num_steps=2",
    "--set", "dm.num_updates=2", "--out",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    msd("distill", *OWN, folder)
    return folder


def test_the_teacher_is_trained_and_its_students_distilled(run: Path) -> None:
    facts, cohort = read_facts(run / "teacher"), json.loads((run / "cohort" / "cohort.json").read_text())
    assert facts["spec"]["codec"]["kind"] == "folded"
    assert facts["spec"]["noise_shape"] == [4, 4, 4]
    assert facts["classes"] == [str(number) for number in range(10)]
    assert facts["prior"] == [0.1] * 10
    assert cohort["teacher"]["hash"] == denoiser_hash(run / "teacher")
    assert (cohort["noise_shape"], cohort["pixel_shape"]) == ([4, 4, 4], [1, 8, 8])


def test_the_same_command_again_trains_nothing(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    msd("distill", *OWN, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == before


def test_a_damaged_teacher_is_put_together_again_bit_for_bit(run: Path) -> None:
    before, weights = denoiser_hash(run / "teacher"), run / "teacher" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "put together again" in msd("distill", *OWN, run).stderr
    assert denoiser_hash(run / "teacher") == before


def test_the_plan_shows_the_teacher_first_and_no_hash_that_is_not_known(run: Path) -> None:
    jobs = json.loads(msd("plan", *OWN[:-1], "--json").stdout)["jobs"]
    assert [job["name"] for job in jobs] == ["teacher", "pairs", "student-0", "student-1"]
    assert jobs[0]["hash"]
    assert [job["hash"] for job in jobs[1:]] == [None] * 3
    assert jobs[2]["after"] == [jobs[0]["key"], "pairs"]


def test_what_cannot_be_measured_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """A demo ends in a table; hours before it, the networks and references that the table needs are looked at."""
    folder = tmp_path / "run"
    arguments = ("demo", *OWN, folder, "--set", f"evaluation.features={tmp_path / 'nowhere'}")
    assert "nowhere" in fails(*arguments)
    assert not (folder / "jobs").exists()


def test_images_that_changed_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is about one set of images: with others, it says what to do and touches nothing."""

    def fewer():
        images = load_digits()
        return replace(images, pixels=images.pixels[:-1], labels=images.labels[:-1])

    monkeypatch.setitem(images_module.PACKAGED, DIGITS, fewer)
    assert "changed since" in fails("distill", *OWN, run)
