"""Files of mean and covariance: EDM's and our own measure a Frechet distance and nothing else, and are read strictly."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import UNIFORM
from msd.commands.console import Output
from msd.commands.reference import make_reference
from msd.conditions.partition import Partition
from msd.data.images import ImageSet, load_images
from msd.errors import DataError, MsdError
from msd.evaluation import bench as bench_module
from msd.evaluation import statistics as module
from msd.evaluation.bench import Bench
from msd.evaluation.features import Extractor, load_network
from msd.evaluation.metrics import frechet_distance
from msd.evaluation.moments import Moments
from msd.evaluation.protocol import INCEPTION_METRIC
from msd.evaluation.statistics import moments_of, read_statistics, write_statistics
from msd.recipe import DataSection, EvaluationSection, load_recipe


class Rows(torch.nn.Module):
    """Stands where Inception would: the means of an image's rows, in no time."""

    num_features = 8

    def forward(self, pixels: Tensor) -> tuple[Tensor, None]:
        return pixels.mean((1, 3)), None


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images(load_recipe("digits").data)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Extractor:
    found = Extractor(Rows(), "inception:weights.pth", "3" * 64, INCEPTION_METRIC, at_a_time=7)
    monkeypatch.setattr(bench_module, "load_network", lambda *_: found)
    return found


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


def edms(path: Path, images: ImageSet, network: Extractor) -> Path:
    """As EDM publishes it: mu and sigma in double precision, and nothing else."""
    values = network.extract(images.batches(500)).values.double().numpy()
    np.savez(path, mu=values.mean(0), sigma=np.cov(values, rowvar=False))
    return path


def bench(path: Path, images: ImageSet | None = None, **settings: Any) -> Bench:
    partition = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)
    chosen = EvaluationSection(
        **{"num_samples": 300, "reference": str(path), "features": "inception:weights.pth", **settings}
    )
    return Bench(images, partition, chosen, image_shape=(1, 8, 8))


def test_edms_statistics_measure_as_the_images_do(tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    """The distance is the same; what needs features is empty, and the row says why."""
    measured = bench(edms(tmp_path / "digits.npz", images, network))
    pixels = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    row, whole = measured.score(pixels), bench(Path("data"), images, reference="data").score(pixels)
    assert row["frechet_distance"] == pytest.approx(whole["frechet_distance"], rel=1e-6, abs=1e-4)
    assert {name for name, value in row.items() if value is None} == {
        "kid", "precision", "recall", "per_part", "label_accuracy", "memorisation"
    }  # fmt: skip
    assert whole["kid"] is not None
    assert measured.floor() == {}
    said = measured.provenance
    assert (said["reference"], said["reference_holds"], said["num_reference"]) == ("digits.npz", "mean and covariance", None)
    assert said["metric"] == "FID-Inception (300 samples)"
    assert (measured.pixel_shape, measured.num_conditions, measured.num_unseen) == ((1, 8, 8), 10, 0)


def test_only_the_protocol_is_called_fid(tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    path = edms(tmp_path / "digits.npz", images, network)
    whole = bench(path, num_samples=50_000, conditions="balanced")
    assert whole.provenance["metric"] == "FID"
    assert whole.provenance["short_of_protocol"] == []
    drawn = bench(path, num_samples=50_000)
    assert drawn.provenance["metric"] == "FID-Inception (50,000 samples)"
    assert "prior" in drawn.provenance["short_of_protocol"][0]
    assert drawn.content != whole.content


@pytest.mark.parametrize("num", [7, 30, 34, 301])
def test_balanced_conditions_are_as_many_of_each(num: int, tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    """One more of some where ten do not divide them; the first of many are the few; another seed, another order."""
    path = edms(tmp_path / "digits.npz", images, network)
    labels = bench(path, num_samples=num, conditions="balanced").labels
    counts = torch.bincount(labels, minlength=10)
    assert len(labels) == num
    assert int(counts.max() - counts.min()) == (1 if num % 10 else 0)
    assert torch.equal(bench(path, num_samples=1000, conditions="balanced").labels[:num], labels)
    assert not torch.equal(bench(path, num_samples=num, conditions="balanced", seed=9).labels, labels)


def test_a_file_of_our_own_says_what_it_is_of(tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    """And EDM's own code, which asks for two keys, can read it."""
    path = tmp_path / "ours.npz"
    write_statistics(path, moments_of(images, network), images, network)
    found = read_statistics(path, network)
    values = network.extract(images.batches(500)).values
    assert torch.allclose(found.moments.mean, values.double().mean(0), rtol=1e-12)
    assert torch.allclose(found.moments.covariance, values.double().T.cov(), rtol=1e-9, atol=1e-12)
    assert (found.name, found.notes.num_images if found.notes else None) == ("digits", 1797)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["mu"].shape == (8,)
        assert arrays["sigma"].dtype == np.float64
    with pytest.raises(DataError, match=r"by another network \(333333333333\) than lite0 .*; set evaluation\.features"):
        read_statistics(path, replace(network, source="lite0", sha256="4" * 64))
    assert bench(path).provenance["num_reference"] == 1797


def test_a_stopped_look_goes_on_to_the_same_file(
    tmp_path: Path, images: ImageSet, network: Extractor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is missing is looked at; broken sums are told, and made again."""
    monkeypatch.setattr(module, "SEEN_AT_A_TIME", 500)
    whole = moments_of(images, network)
    sums = next((tmp_path / "cache" / "features").iterdir())
    sums.unlink()

    def stopping(done: int) -> None:
        seen.append(done)
        if sum(seen) > 1100:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        moments_of(images, network, stopping)
    kept = sums.read_bytes()
    seen.clear()
    again = moments_of(images, network, seen.append)
    assert (seen[0], sum(seen)) == (1000, 1797)
    assert torch.equal(again.covariance, whole.covariance)
    assert capsys.readouterr().err == ""
    for broken in (b"?", kept[:-3] + b"abc"):
        sums.write_bytes(broken)
        assert torch.equal(moments_of(images, network).covariance, whole.covariance)
        assert "the images are looked at from the first" in capsys.readouterr().err


def test_the_command_writes_moments_where_an_npz_is_asked_for(tmp_path: Path) -> None:
    said = make_reference(DataSection(), "packaged:digits", tmp_path / "new.npz", Output(), most=100)
    assert (said["holds"], said["num_images"], said["of"]) == ("mean and covariance", 1797, 1797)
    own = load_network("packaged:digits")
    values = own.extract(load_images(DataSection()).batches(1000)).values
    moments = read_statistics(tmp_path / "new.npz", own).moments
    assert torch.allclose(moments.covariance, Moments.of(values).covariance, atol=1e-9)
    assert frechet_distance(values, values[::2]) > 0
    assert not list((tmp_path / "cache" / "features").glob("*")), "what was kept for a stop is removed"
    assert not list(tmp_path.glob(".new*"))


def rewritten(**changes: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with np.load(path) as arrays:
            found = {**arrays, **changes}
        np.savez(path, allow_pickle=True, **{name: value for name, value in found.items() if value is not None})

    return damage


def bomb(path: Path) -> None:
    """A header that promises eight terabytes."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})  # pyright: ignore
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", stream.getvalue())
        archive.writestr("sigma.npy", stream.getvalue())


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "does not exist"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    "a page": (lambda path: path.write_text("<html>"), "is a web page"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "pointer of git-LFS"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:400]), "cannot be read"),
    "text": (lambda path: path.write_text("mu, sigma"), "cannot be read"),
    "other keys": (rewritten(sigma=None, images=np.zeros(3)), "has 'images', 'mu', not 'mu' and 'sigma'"),
    "objects": (rewritten(mu=np.array([{}] * 8, dtype=object)), "its mu are pickled objects, which could run code"),
    "another network's": (rewritten(mu=np.zeros(9), sigma=np.eye(9)), r"has mu \(9,\) and sigma \(9, 9\), not \(8,\)"),
    "flat": (rewritten(sigma=np.ones(8)), r"sigma \(8,\)"),
    "whole numbers": (rewritten(mu=np.arange(8)), "mu is of type int64, not of floats"),
    "no numbers": (rewritten(mu=np.full(8, np.nan)), "not finite"),
    "not symmetric": (rewritten(sigma=np.triu(np.ones((8, 8)))), "no covariance"),
    "below zero": (rewritten(sigma=-np.eye(8)), "no covariance"),
    "notes that are none": (rewritten(msd=np.array("[1,")), "cannot be read"),
    "a newer file": (rewritten(msd=np.array(json.dumps({"schema": 2}))), "newer msd"),
    "other notes": (rewritten(msd=np.array(json.dumps({"schema": 1, "name": 3}))), "is not a file of mean and covariance"),
    "a bomb": (bomb, "its mu are float64"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_whatever_became_of_a_file_is_one_sentence(name: str, tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    path = edms(tmp_path / "digits.npz", images, network)
    damage, words = DAMAGES[name]
    damage(path)
    with pytest.raises(DataError, match=words) as caught:
        read_statistics(path, network)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_say_whose_it_is_is_inceptions(tmp_path: Path, images: ImageSet, network: Extractor) -> None:
    path = edms(tmp_path / "digits.npz", images, network)
    with pytest.raises(DataError, match=r"lite0 is another network; set evaluation\.features to inception:FILE"):
        read_statistics(path, replace(network, source="lite0", metric="FID-Lite0"))


def test_the_command_fails_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(MsdError, match="does not exist"):
        make_reference(DataSection(), f"inception:{tmp_path / 'none.pth'}", tmp_path / "new.npz", Output())
    assert not list(tmp_path.iterdir())
