"""The packaged benchmark set: what is shipped belongs together, and distilling and measuring need none of its images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from command import fails, msd
from msd.data.images import load_images
from msd.evaluation.features import load_network, packaged_folder
from msd.evaluation.metrics import frechet_distance
from msd.evaluation.reference import load_reference, reference_of
from msd.recipe import load_recipe
from msd.teachers.folder import load_teacher

RECIPE = load_recipe("fashion")
NAME = RECIPE.teacher.source
HAS_IMAGES = Path(RECIPE.data.source).is_dir()
SHORT = (
    "fashion", "--set", "data.source=not-at-hand", "--set", "partition.num_parts=2", "--set", "rows={}",
    "--set", "pairs.num_pairs=16", "--set", "pairs.solver.num_steps=2", "--set", "dm.num_updates=3",
    "--set", "dm.batch_size=2", "--set", "dm.regression.batch_size=2", "--set", "evaluation.num_samples=40",
    "--set", "evaluation.latency_batches=[1]", "--set", "evaluation.latency_repeats=1",
)  # fmt: skip


def test_what_is_shipped_belongs_together() -> None:
    teacher, network = load_teacher(NAME), load_network(NAME)
    reference, facts = load_reference(NAME, network), teacher.facts
    assert facts.classes == RECIPE.data.classes
    assert teacher.denoiser.spec.pixel_shape == network.pixel_shape == reference.pixel_shape == (1, 32, 32)
    assert facts.num_conditions == network.num_conditions == reference.num_conditions == 10
    assert network.metric == reference.metric == "FD-fashion"
    assert len(reference) == 10_000
    assert torch.bincount(reference.labels).tolist() == [1000] * 10
    quality = json.loads((facts.folder / "denoiser.json").read_text())["quality"]
    assert quality["provenance"]["reference_sha256"] == reference.sha256


def test_the_recipe_is_the_teachers_own() -> None:
    """What the file says of its training is what the recipe would train again."""
    told = json.loads((load_teacher(NAME).facts.folder / "denoiser.json").read_text())["recipe"]
    assert told["network"] == RECIPE.network.model_dump(mode="json")
    assert told["pretrain"] == RECIPE.pretrain.model_dump(mode="json")
    assert told["seed"] == RECIPE.seed


def size_of(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.iterdir())


def test_it_is_small_enough_to_ship() -> None:
    assert size_of(packaged_folder(NAME, "reference")) < 3e6
    assert size_of(load_teacher(NAME).facts.folder) < 5e6


def test_a_demo_needs_no_image(tmp_path: Path) -> None:
    msd("demo", *SHORT, "--out", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert metrics["classes"] == list(RECIPE.data.classes or ())
    assert metrics["rows"]["cohort"]["provenance"]["metric"] == "FD-fashion"
    assert "ankle boot" in (tmp_path / "run" / "report" / "index.html").read_text()


def test_what_needs_the_images_says_so(tmp_path: Path) -> None:
    place = f"{tmp_path / 'nowhere'}"
    said = fails("pretrain", "fashion", "--set", f"data.source={place}", "--out", tmp_path / "run")
    assert place in said
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not HAS_IMAGES, reason="Fashion-MNIST is not installed here")
def test_the_shipped_features_are_those_of_the_test_images() -> None:
    """Taken anew from the images, a distance to them differs by less than half a percent: 16 bits round."""
    network = load_network(NAME)
    images = load_images(RECIPE.data.model_copy(update={"split": "test"}))
    shipped, taken = load_reference(NAME, network), reference_of(images, network)
    assert shipped.images_sha256 == images.hash
    generator = torch.Generator().manual_seed(0)
    redrawn = taken.features[torch.randint(len(taken), (3000,), generator=generator)]
    rounded, exact = (frechet_distance(redrawn, one.features) for one in (shipped, taken))
    assert rounded == pytest.approx(exact, rel=5e-3)
