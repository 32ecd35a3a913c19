"""Feature networks: sized by the images, the same from the same seed, and never of other images than they take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from msd.data.images import ImageSet, load_images
from msd.errors import WeightsError
from msd.evaluation import classifier
from msd.evaluation.classifier import FeatureNetwork, budget, held_out_split, num_levels, train_classifier
from msd.evaluation.features import FACTS, WEIGHTS, load_classifier, load_network, read_facts, save_classifier
from msd.recipe import load_recipe

PACKAGED = "35799ba4409443d824e29367aeae67633bad601c4a72ee8373c2a79652564767"


def striped(num: int, shape: tuple[int, int, int], num_conditions: int = 3, seed: int = 0) -> ImageSet:
    """8-bit images that a class's brightness tells apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_conditions
    noise = torch.randint(0, 20, (num, *shape), generator=generator)
    pixels = (noise + 100 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet("stripes", pixels, labels, num_conditions, "CC0")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "MOST_EPOCHS", 16)
    monkeypatch.setattr(classifier, "FEWEST_UPDATES", 16)


@pytest.mark.parametrize(
    ("shape", "num_features"),
    [((1, 8, 8), 64), ((3, 16, 16), 128), ((1, 28, 28), 128), ((3, 64, 64), 128), ((1, 9, 20), 128)],
)
def test_a_network_of_any_resolution_ends_at_about_four_pixels(shape: tuple[int, int, int], num_features: int) -> None:
    network = FeatureNetwork(5, shape)
    features, scores = network(torch.zeros(2, *shape))
    assert (features.shape, scores.shape) == ((2, num_features), (2, 5))
    assert max(shape[1:]) / 2 ** num_levels(*shape[1:]) <= 4.5
    assert sum(value.numel() for value in network.parameters()) < 500_000


def test_the_packaged_network_is_as_it_was() -> None:
    """Its bytes are pinned, and so are its features: of the first scans, by hand from its tensors."""
    network = load_network("packaged:digits")
    assert (network.sha256, network.metric, network.pixel_shape, network.num_conditions) == (
        PACKAGED,
        "FD-digits",
        (1, 8, 8),
        10,
    )
    images = load_images(load_recipe("digits").data)
    found = network.extract(images.batches(1000))
    assert found.values.shape == (1797, 64)
    assert found.predicted is not None
    assert float((found.predicted == images.labels).double().mean()) > 0.99
    weights = network.network.state_dict()

    def conv(places: Tensor, layer: int, stride: int = 1) -> Tensor:
        weight, bias = weights[f"body.{layer}.weight"], weights[f"body.{layer}.bias"]
        return torch.nn.functional.conv2d(places, weight, bias, stride=stride, padding=1).relu()

    flat = conv(conv(conv(images.pixels[:1000], 0), 2, 2), 4).flatten(1)
    expected = (flat @ weights["body.8.weight"].T + weights["body.8.bias"]).relu()
    assert torch.allclose(found.values[:1000], expected, atol=1e-4)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 28, 28)])
def test_training_learns_and_repeats(shape: tuple[int, int, int], tmp_path: Path) -> None:
    images = striped(60, shape)
    network, recipe = train_classifier(images, seed=3, batch_size=16, learning_rate=4e-3)
    again, _ = train_classifier(images, seed=3, batch_size=16, learning_rate=4e-3)
    other, _ = train_classifier(images, seed=4, batch_size=16)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    assert not torch.equal(network.head.weight, other.head.weight)
    assert recipe["held_out"] == 12
    assert recipe["held_out_accuracy"] > 0.9
    assert len(recipe["held_out_accuracy_by_class"]) == 3
    assert recipe["num_updates"] == 48

    save_classifier(network, tmp_path, recipe)
    loaded = load_classifier(tmp_path)
    assert (loaded.metric, loaded.pixel_shape, read_facts(tmp_path)["licence"]) == ("FD-stripes", shape, "CC0")
    with torch.no_grad():
        expected = network(images.batch(torch.arange(60)))[0]
    assert torch.equal(loaded.extract(images.batches(60)).values, expected)
    assert loaded.extract(images.batches(7)).values == pytest.approx(expected, abs=1e-5)


@pytest.mark.usefixtures("quick")
def test_every_class_is_trained_on_and_one_image_of_a_class_is_not_held_out() -> None:
    labels = torch.tensor([0] * 40 + [1, 2, 2])
    for seed in range(20):
        held_out, kept = held_out_split(labels, 4, torch.Generator().manual_seed(seed))
        assert sorted([*held_out.tolist(), *kept.tolist()]) == list(range(43))
        assert set(labels[kept].tolist()) == {0, 1, 2}
        assert 40 not in held_out.tolist()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("num", [1, 2, 4])
def test_a_few_images_make_a_network_too(num: int) -> None:
    _, recipe = train_classifier(striped(num, (1, 8, 8)), seed=0)
    assert (recipe["held_out"], recipe["held_out_accuracy"]) == (0, None)


def test_one_class_is_warned_of(capsys: pytest.CaptureFixture[str], quick: None) -> None:
    _, recipe = train_classifier(striped(20, (1, 8, 8), num_conditions=1), seed=0)
    assert "are of one class" in capsys.readouterr().err
    assert recipe["held_out_accuracy"] == 1


def test_large_sets_take_a_fixed_number_of_updates() -> None:
    """Digits keep their 60 passes; a million images take no longer than fifty thousand; a handful has its 300 updates."""
    assert (budget(1438, 128).num_epochs, budget(1438, 128).num_updates) == (60, 720)
    for num in (20_000, 48_000, 10**6):
        assert 2000 <= budget(num, 128).num_updates <= 3000
        assert budget(num, 128).num_epochs >= 10
    assert 300 <= budget(10, 128).num_updates <= 400


def test_images_of_another_shape_are_refused_with_the_next_step() -> None:
    network = load_network("packaged:digits")
    network.check_fits((1, 8, 8))
    with pytest.raises(
        WeightsError, match=r"packaged:digits takes 1x8x8 images, these are 3x32x32; set evaluation\.features=cl"
    ):
        network.check_fits((3, 32, 32))


def test_networks_that_are_not_there_are_named(tmp_path: Path) -> None:
    for source, folder, words in (
        ("classifier", None, "there is no run here"),
        ("classifier", tmp_path, "has no feature network yet; run `msd pretrain RECIPE --network features --out"),
        ("packaged:cats", None, "packaged:cats has no features in msd; choose packaged:digits"),
        ("packaged:../digits", None, "has no features in msd"),
        (str(tmp_path / "none"), None, "does not exist"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_network(source, folder)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_shape": [3, 8, 8]}, "holds another network"),
        ({"pixel_shape": [1, 4096, 4096]}, "holds another network"),
        ({"num_conditions": 10**6}, "holds another network"),
        ({"pixel_shape": [1, 8]}, "pixel_shape"),
        ({"sha256": "0" * 64}, "missing or damaged"),
    ],
)
def test_facts_that_the_weights_contradict_are_refused(tmp_path: Path, change: dict, words: str) -> None:
    network, recipe = train_classifier(striped(10, (1, 8, 8)), seed=0)
    save_classifier(network, tmp_path, recipe)
    facts = json.loads((tmp_path / FACTS).read_text())
    (tmp_path / FACTS).write_text(json.dumps(facts | change))
    with pytest.raises(WeightsError, match=words):
        load_classifier(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    (tmp_path / FACTS).write_text(json.dumps(facts))
    with pytest.raises(WeightsError, match="missing or damaged"):
        load_classifier(tmp_path)
