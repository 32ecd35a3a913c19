"""Files of reference features: they measure as the images do, are read strictly, and are kept by hash."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import UNIFORM
from msd.commands.console import Output
from msd.commands.reference import make_reference
from msd.conditions.partition import Partition
from msd.data.images import ImageSet, load_images
from msd.errors import DataError, MsdError, WeightsError
from msd.evaluation import reference as module
from msd.evaluation.bench import Bench
from msd.evaluation.features import Extractor, load_network
from msd.evaluation.metrics import frechet_distance
from msd.evaluation.reference import evenly, kept_reference, load_reference, read_reference, reference_of, write_reference
from msd.recipe import DataSection, EvaluationSection, load_recipe


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images(load_recipe("digits").data)


@pytest.fixture(scope="module")
def network() -> Extractor:
    return load_network("packaged:digits")


@pytest.fixture
def file(tmp_path: Path, images: ImageSet, network: Extractor) -> Path:
    write_reference(tmp_path / "digits.safetensors", reference_of(images, network))
    return tmp_path / "digits.safetensors"


def test_a_file_comes_back_as_it_was_written(file: Path, images: ImageSet, network: Extractor) -> None:
    taken, read = reference_of(images, network), load_reference(str(file), network)
    assert torch.equal(read.features, taken.features.half().float())
    assert torch.equal(read.labels, images.labels)
    assert replace(read, features=taken.features, sha256=taken.sha256) == replace(taken, labels=read.labels)
    before = file.read_bytes()
    write_reference(file, taken)
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".*"))


def test_a_shipped_file_measures_as_the_images_do(file: Path, images: ImageSet, network: Extractor) -> None:
    """Rounding to 16 bits moves a distance by less than half a percent, near (redraws) and far (noisy images)."""
    rounded, real = read_reference(file, network).features, reference_of(images, network).features
    generator = torch.Generator().manual_seed(0)
    redrawn = real[torch.randint(len(real), (2000,), generator=generator)]
    noise = torch.randn(images.pixels.shape, generator=generator)
    noisy = network.extract([(images.pixels + 0.3 * noise).clamp(-1, 1)]).values
    for values in (redrawn, noisy):
        assert frechet_distance(rounded, values) == pytest.approx(frechet_distance(real, values), rel=0.005)


def test_ten_thousand_references_fill_less_than_three_megabytes(
    tmp_path: Path, images: ImageSet, network: Extractor
) -> None:
    taken = reference_of(images, network)
    many = replace(taken, features=torch.rand(10_000, 128), labels=torch.arange(10_000) % 10, num_images=60_000)
    write_reference(tmp_path / "many", many)
    assert (tmp_path / "many").stat().st_size < 3_000_000
    assert len(read_reference(tmp_path / "many")) == 10_000


def test_a_file_of_another_network_is_refused(file: Path, network: Extractor) -> None:
    other = replace(network, sha256="0" * 64, source="classifier", metric="FD-cats")
    with pytest.raises(DataError, match=r"of FD-digits by another network than classifier .* set evaluation\.features to"):
        read_reference(file, other)


def rewritten(path: Path, notes: str | None = None, **tensors: Any) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        said = stored.metadata()["msd"]
    save_file({**load_file(path), **tensors}, path, {"msd": notes or said} if notes != "" else None)


NAN = torch.full((1797, 64), torch.nan, dtype=torch.float16)
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "does not exist"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "it is not a file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "text": (lambda path: path.write_text("features, please"), "cannot be read"),
    "no notes": (lambda path: rewritten(path, ""), "is not a file of reference features"),
    "other notes": (lambda path: rewritten(path, '{"schema": 1, "name": 3}'), "it lacks|name"),
    "a newer file": (lambda path: rewritten(path, '{"schema": 2}'), "newer msd"),
    "notes that are none": (lambda path: rewritten(path, "[1,"), "cannot be read"),
    "other features": (lambda path: rewritten(path, features=torch.zeros(1797, 64).half()), "other content"),
    "no numbers": (lambda path: rewritten(path, features=NAN), "not finite"),
    "too few": (lambda path: rewritten(path, features=torch.zeros(5, 64).half()), "no set of them"),
    "flat": (lambda path: rewritten(path, features=torch.zeros(1797).half()), "no set of them"),
    "labels beyond": (lambda path: rewritten(path, labels=torch.full((1797,), 10)), "labels beyond"),
    "labels of another type": (lambda path: rewritten(path, labels=torch.zeros(1797)), "no set of them"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_whatever_became_of_a_file_is_one_sentence(file: Path, network: Extractor, name: str) -> None:
    damage, words = DAMAGES[name]
    damage(file)
    with pytest.raises(DataError, match=words) as caught:
        read_reference(file, network)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_packaged_reference_that_is_not_there_is_named(network: Extractor) -> None:
    with pytest.raises(WeightsError, match=r"packaged:nothing has no reference in msd; .*evaluation\.reference"):
        load_reference("packaged:nothing", network)


def test_a_row_is_measured_without_any_images(file: Path, images: ImageSet) -> None:
    """To a file of their features: all numbers but memorisation, and the same ones to rounding."""
    partition = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)
    settings = EvaluationSection(num_samples=300, seed=5)
    with_images = Bench(images, partition, settings)
    without = Bench(None, partition, settings.model_copy(update={"reference": str(file)}))
    assert (without.pixel_shape, without.num_conditions, without.num_unseen) == ((1, 8, 8), 10, 0)
    pixels = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, second = with_images.score(pixels), without.score(pixels)
    assert second.pop("memorisation") is None
    for name in ("frechet_distance", "kid", "per_part"):
        assert second[name] == pytest.approx(first[name], rel=0.005)
    assert second["label_accuracy"] == first["label_accuracy"]
    assert without.provenance["reference_sha256"] == read_reference(file).sha256
    assert without.provenance["num_reference"] == 1797
    assert without.content != with_images.content
    assert without.floor() == pytest.approx(with_images.floor(), rel=0.005)


def test_without_images_only_a_file_will_do() -> None:
    with pytest.raises(DataError, match=r"set evaluation\.reference to a file"):
        Bench(None, Partition.whole(UNIFORM), EvaluationSection())
    images = load_images(load_recipe("digits").data)
    with pytest.raises(DataError, match="the real images have 10 classes, the partition 5; set data"):
        Bench(images, Partition.whole((0.2,) * 5), EvaluationSection())


def test_features_are_kept_by_hash(
    tmp_path: Path, images: ImageSet, network: Extractor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken once; kept ones are told from others, made again where broken, and not needed."""
    monkeypatch.setenv("MSD_CACHE", str(tmp_path))
    assert len(kept_reference(images, network)) == 1797
    assert not list(tmp_path.iterdir())  # so few are taken faster than they are found
    monkeypatch.setattr(module, "KEPT_FROM", 10)
    first = kept_reference(images, network, 500)
    (path,) = (tmp_path / "features").iterdir()
    assert torch.equal(first.labels.unique(), torch.arange(10)), "a sample has its share of each class"

    def never(*_: Any) -> Any:
        raise AssertionError("taken again")

    with monkeypatch.context() as context:
        context.setattr(Extractor, "extract", never)
        again = kept_reference(images, network, 500)
        assert torch.equal(again.features, first.features)  # not rounded
        assert again.sha256 == images.hash
        with pytest.raises(AssertionError):
            kept_reference(images, network, 400)
        with pytest.raises(AssertionError):
            kept_reference(images, replace(network, sha256="1" * 64), 500)
    assert capsys.readouterr().err == ""

    for damage in (lambda: path.write_bytes(b"?"), lambda: write_reference(path, reference_of(images, network))):
        damage()
        assert torch.equal(kept_reference(images, network, 500).features, first.features)
        assert "made again" in capsys.readouterr().err
        assert len(read_reference(path, network)) == 500

    monkeypatch.setenv("MSD_CACHE", str(path))  # a file, where nothing can be kept
    assert torch.equal(kept_reference(images, network, 500).features, first.features)
    assert "are not kept for the next time" in capsys.readouterr().err


@pytest.mark.parametrize(("num", "most"), [(10, 20), (20, 20), (60_000, 10_000), (7, 3), (1, 1)])
def test_a_sample_is_spread_evenly(num: int, most: int) -> None:
    index = evenly(num, most)
    assert len(index) == min(num, most)
    assert len(index.unique()) == len(index)
    assert 0 <= int(index.min()) <= int(index.max()) < num
    if num > most > 1:
        assert int(index.diff().max()) - int(index.diff().min()) <= 1


def test_the_command_writes_a_file_and_says_what_it_holds(tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    said = make_reference(DataSection(), "packaged:digits", out, Output(), most=100)
    assert (said["metric"], said["num_images"], said["of"]) == ("FD-digits", 100, 1797)
    assert said["num_bytes"] == out.stat().st_size
    assert "UCI" in said["licence"]
    assert len(load_reference(str(out), load_network("packaged:digits"))) == 100


@pytest.mark.parametrize(
    ("features", "place", "words"),
    [
        ("classifier", "x.safetensors", "there is no run here"),
        ("packaged:digits", ".", "is a folder; give --out the name of a file"),
        ("packaged:digits", "file/x.safetensors", "cannot be written"),
    ],
)
def test_the_command_fails_before_any_work(tmp_path: Path, features: str, place: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MsdError, match=words):
        make_reference(DataSection(), features, tmp_path / place, Output())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
