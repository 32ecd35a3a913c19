"""A run's own feature network: trained once, mended, told from that of other images, used where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import UNIFORM, save_student, save_teacher
from command import msd
from msd.cohort.manifest import assemble
from msd.commands import pretrain
from msd.commands.console import Output
from msd.commands.pretrain import pretrain_features
from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.errors import RecipeError
from msd.evaluation import classifier
from msd.evaluation.features import FACTS, WEIGHTS, load_network
from msd.recipe import load_recipe
from msd.run import Run

OWN = ["evaluation.features=classifier"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "MOST_EPOCHS", 1)
    monkeypatch.setattr(classifier, "FEWEST_UPDATES", 1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sets that networks are trained on, as it happens."""
    names: list[str] = []

    def noting(images: ImageSet, *rest: Any, **settings: Any) -> Any:
        names.append(images.name)
        return classifier.train_classifier(images, *rest, **settings)

    monkeypatch.setattr(pretrain, "train_classifier", noting)
    return names


def test_a_network_that_is_there_is_not_trained_again(tmp_path: Path, trained: list[str]) -> None:
    run = Run.at(load_recipe("smoke"), tmp_path / "run")
    facts = pretrain_features(run, Output())
    weights = (run.features / WEIGHTS).read_bytes()
    assert facts["num_updates"] == 12
    assert pretrain_features(run, Output()) == facts
    assert trained == ["digits"]
    assert load_network("classifier", run.folder).metric == "FD-digits"

    elsewhere = Run.at(load_recipe("smoke"), tmp_path / "again")
    pretrain_features(elsewhere, Output())
    assert (elsewhere.features / WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"{"), lambda path: path.unlink()])
def test_a_damaged_network_is_mended(
    tmp_path: Path, trained: list[str], name: str, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.at(load_recipe("smoke"), tmp_path / "run")
    facts = pretrain_features(run, Output())
    damage(run.features / name)
    (run.features / "mine.txt").write_text("stays")
    assert pretrain_features(run, Output()) == facts
    assert len(trained) == 2
    assert "the feature network is trained again" in " ".join(capsys.readouterr().err.split())
    assert (run.features / "mine.txt").read_text() == "stays"


def test_other_images_make_another_network(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.at(load_recipe("smoke"), tmp_path / "run")
    pretrain_features(run, Output())
    other = ImageSet("others", torch.zeros(20, 3, 16, 16, dtype=torch.uint8), torch.arange(20) % 10, 10, "CC0")
    monkeypatch.setattr(pretrain, "load_images", lambda data: other)
    assert pretrain_features(run, Output())["pixel_shape"] == [3, 16, 16]
    assert "was trained on other images" in " ".join(capsys.readouterr().err.split())
    assert load_network("classifier", run.folder).metric == "FD-others"


def test_a_training_that_ends_early_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.at(load_recipe("smoke"), tmp_path / "run")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "save_classifier", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain_features(run, Output())
    assert not run.features.exists()
    assert not list(run.folder.glob(".features*"))


def test_a_cohort_is_measured_by_its_runs_own_network(tmp_path: Path) -> None:
    """`msd eval` finds the network in the run that the cohort lies in; elsewhere it says what to set."""
    teacher = save_teacher(tmp_path / "teacher")
    few = ["evaluation.num_samples=20", "evaluation.latency_batches=[1]", "evaluation.latency_repeats=1"]
    recipe = load_recipe("smoke", [f"teacher.source={tmp_path / 'teacher'}", *few, *OWN])
    run = Run.at(recipe, tmp_path / "run")
    whole = Partition.whole(UNIFORM)
    student = save_student(tmp_path / "made", whole, 0, teacher=teacher.hash)
    assemble(run.cohort, "test", whole, [student], recipe=recipe.model_dump(mode="json"))
    run.begin()
    assert "has no feature network yet; run `msd pretrain" in msd("eval", run.cohort, code=2).stderr
    facts = pretrain_features(run, Output())
    found = json.loads(msd("eval", run.cohort, "--json").stdout)
    assert found["rows"]["cohort"]["provenance"]["feature_network_sha256"] == facts["sha256"]
    run.cohort.rename(tmp_path / "alone")
    assert "set evaluation.features to its folder" in " ".join(msd("eval", tmp_path / "alone", code=2).stderr.split())
    said = msd("eval", tmp_path / "alone", "--set", f"evaluation.features={run.features}", "--json")
    assert json.loads(said.stdout)["rows"]["cohort"]["frechet_distance"] == found["rows"]["cohort"]["frechet_distance"]


def test_second_opinions_are_words() -> None:
    assert load_recipe("smoke", ["evaluation.also=[lite0]"]).evaluation.also == ("lite0",)
    for value in ("[inception]", "lite0", "[../x]"):
        with pytest.raises(RecipeError, match=r"evaluation\.also"):
            load_recipe("smoke", [f"evaluation.also={value}"])
