"""The papers' protocol from the command line, with Inception's network on random weights: a reference, then a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import UNIFORM, save_student, save_teacher
from command import msd
from inception_files import save_inception
from msd.cohort.manifest import assemble
from msd.conditions.partition import Partition
from msd.errors import RecipeError
from msd.recipe import load_recipe

FEW = ["evaluation.num_samples=20", "evaluation.latency_batches=[1]", "evaluation.latency_repeats=1"]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    teacher = save_teacher(tmp_path / "teacher")
    recipe = load_recipe("smoke", [f"teacher.source={tmp_path / 'teacher'}", "evaluation.teacher=[euler2]", *FEW])
    whole = Partition.whole(UNIFORM)
    student = save_student(tmp_path / "made", whole, 0, teacher=teacher.hash)
    assemble(tmp_path / "cohort", "test", whole, [student], recipe=recipe.model_dump(mode="json"))
    return tmp_path / "cohort"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(10):
        (tmp_path / "pictures" / f"class-{number}").mkdir(parents=True)
        for index in range(2):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / f"class-{number}" / f"{index}.png")
    return tmp_path / "pictures"


def test_a_reference_is_made_and_a_cohort_is_measured_to_it(
    cohort: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once from a folder, whose file EDM's code could read; words, counts and reasons are the same everywhere."""
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    save_inception(tmp_path / "inception.pth")
    said = json.loads(
        msd("data", "reference", pictures, "--features", "inception:inception.pth", "--out", "real.npz", "--json").stdout
    )
    assert (said["metric"], said["num_images"], said["holds"]) == ("FID-Inception", 20, "mean and covariance")
    with np.load("real.npz", allow_pickle=False) as arrays:
        assert arrays["sigma"].shape == (2048, 2048)
    settings = ["evaluation.features=inception:inception.pth", "evaluation.reference=real.npz"]
    changes = [word for one in [*settings, "evaluation.conditions=balanced"] for word in ("--set", one)]
    found = json.loads((done := msd("eval", cohort, *changes, "--json")).stdout)
    row, told = found["rows"]["cohort"], " ".join(done.stderr.split())
    assert row["frechet_distance"] > 0
    assert (row["kid"], row["per_part"], found["floor"]) == (None, None, {})
    assert row["provenance"]["metric"] == "FID-Inception (20 samples)"
    assert row["provenance"]["conditions"] == "balanced"
    assert "Not the papers' protocol, and so not called FID: 20 samples, not 50,000." in told
    assert "No KID, precision, recall, distance of a part or floor" in told
    shown = msd("eval", cohort, *changes).stdout
    assert "FID-Inception (20 samples); latency" in " ".join(shown.split())
    save_inception(tmp_path / "inception.pth", seed=1)
    refused = msd("eval", cohort, *changes, code=2).stderr
    assert "real.npz holds statistics of FID-Inception by another network" in refused


def test_whose_features_must_be_said_of_a_folder(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words, told in (
        ([pictures], "add e.g. --features inception:FILE"),
        ([pictures, "--features", "inception"], "inception needs the file of its weights; write inception:FILE"),
        ([pictures, "--features", "inception:none.pth"], "none.pth (the weights that evaluation.features=inception:FILE"),
        ([pictures, "--features", "lite0", "--set", "dm.learning_rate=1"], "says nothing about the images"),
        (["picturs", "--features", "lite0"], "there is no recipe 'picturs'"),
    ):
        assert told in " ".join(msd("data", "reference", *words, "--out", "real.npz", code=2).stderr.split())
    assert not (tmp_path / "real.npz").exists()


def test_a_relative_file_of_weights_belongs_to_where_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_recipe("smoke", ["evaluation.features=inception:weights/a.pth"])
    assert found.evaluation.features == f"inception:{tmp_path / 'weights' / 'a.pth'}"
    again = load_recipe("smoke", [f"evaluation.features={found.evaluation.features}"])
    assert again.evaluation.features == found.evaluation.features
    for word in ("inception", "'inception:'"):
        with pytest.raises(RecipeError, match="inception needs the file of its weights"):
            load_recipe("smoke", [f"evaluation.features={word}"])
    with pytest.raises(RecipeError, match=r"evaluation\.conditions"):
        load_recipe("smoke", ["evaluation.conditions=uniform"])
