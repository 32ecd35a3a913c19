"""Inception's network against the published layout, its preprocessing against formulas, and files that are not its own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d, relu

from inception_files import layers, random_state, save_inception
from msd.errors import WeightsError
from msd.evaluation.features import load_network
from msd.evaluation.inception import Inception, average, prepared, resizing
from msd.evaluation.inception_file import load_inception
from msd.files import sha256_file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def network(file: Path) -> Inception:
    return load_inception(file)[0]


def test_the_layout_is_the_published_one() -> None:
    """94 convolutions; names and shapes as the tests have them written out, and 23,850,960 parameters."""
    with torch.device("meta"):
        network = Inception()
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in random_state().items()
    }
    assert len(layers()) == 94
    assert sum(value.numel() for value in network.parameters()) == 23_850_960


def layer(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1, is_padded: bool = True) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    x = conv2d(x, weight, stride=stride, padding=(weight.shape[2] // 2, weight.shape[3] // 2) if is_padded else 0)
    mean, variance, scale, shift = (state[f"{name}.bn.{one}"] for one in ("running_mean", "running_var", "weight", "bias"))
    return relu(batch_norm(x, mean, variance, scale, shift, eps=1e-3))


def published(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The features as the paper's figures draw them, layer by layer, by functions alone."""

    def chain(block: str, x: Tensor, *names: str, last: dict[str, Any] | None = None) -> Tensor:
        for name in names:
            x = layer(state, f"{block}.{name}", x, **((last or {}) if name == names[-1] else {}))
        return x

    down = {"stride": 2, "is_padded": False}
    x = layer(state, "Conv2d_1a_3x3", x, **down)
    x = layer(state, "Conv2d_2a_3x3", x, is_padded=False)
    x = max_pool2d(layer(state, "Conv2d_2b_3x3", x), 3, 2)
    x = layer(state, "Conv2d_4a_3x3", layer(state, "Conv2d_3b_1x1", x), is_padded=False)
    x = max_pool2d(x, 3, 2)
    triple = [f"branch3x3dbl_{number}" for number in (1, 2, 3)]
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        pooled = avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        fives = chain(block, x, "branch5x5_1", "branch5x5_2")
        x = torch.cat(
            [chain(block, x, "branch1x1"), fives, chain(block, x, *triple), chain(block, pooled, "branch_pool")], 1
        )
    threes = chain("Mixed_6a", x, "branch3x3", last=down)
    x = torch.cat([threes, chain("Mixed_6a", x, *triple, last=down), max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        pooled = avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        sevens = chain(block, x, *(f"branch7x7_{number}" for number in (1, 2, 3)))
        more = chain(block, x, *(f"branch7x7dbl_{number}" for number in (1, 2, 3, 4, 5)))
        x = torch.cat([chain(block, x, "branch1x1"), sevens, more, chain(block, pooled, "branch_pool")], 1)
    threes = chain("Mixed_7a", x, "branch3x3_1", "branch3x3_2", last=down)
    sevens = chain("Mixed_7a", x, *(f"branch7x7x3_{number}" for number in (1, 2, 3, 4)), last=down)
    x = torch.cat([threes, sevens, max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_7b", "Mixed_7c"):
        pooled = avg_pool2d(x, 3, 1, 1, count_include_pad=False) if block == "Mixed_7b" else max_pool2d(x, 3, 1, 1)
        forks = [chain(block, x, "branch1x1")]
        for first, names in (("branch3x3_2", ["branch3x3_1"]), ("branch3x3dbl_3", ["branch3x3dbl_1", "branch3x3dbl_2"])):
            inner = chain(block, x, *names)
            forks += [chain(block, inner, f"{first}a"), chain(block, inner, f"{first}b")]
        x = torch.cat([*forks, chain(block, pooled, "branch_pool")], 1)
    return x.mean((2, 3))


@torch.no_grad()
def test_features_are_those_of_the_published_network(network: Inception) -> None:
    """Also of the same network without its norms folded away, to float rounding."""
    pixels = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features, scores = network(pixels)
    assert (features.shape, scores) == ((2, 2048), None)
    wanted = published(random_state(), prepared(pixels))
    assert float(wanted.std()) > 0.05
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_an_average_leaves_the_border_out() -> None:
    """Each place over those neighbours that there are: 4 in a corner, 6 at an edge, 9 inside."""
    places = torch.rand(1, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    found = average(places)
    for row in range(4):
        for column in range(5):
            around = places[..., max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert torch.allclose(found[..., row, column], around.mean((2, 3)))


@pytest.mark.parametrize(("before", "after"), [(8, 299), (64, 299), (299, 299), (500, 299), (3, 7), (1, 4), (7, 3)])
def test_sizes_are_brought_as_tensorflow_1_does(before: int, after: int) -> None:
    """Place i lies at i * before / after, without half pixels; beyond the last place there is the last place."""
    values = np.random.default_rng(0).uniform(0, 255, before)
    expected = []
    for place in range(after):
        position = place * before / after
        low = int(np.floor(position))
        high = min(low + 1, before - 1)
        expected.append(values[low] + (values[high] - values[low]) * (position - low))
    assert np.allclose(resizing(before, after).double().numpy() @ values, expected, atol=0.02)
    if before == after:
        assert torch.equal(resizing(before, after), torch.eye(after))


def test_pixels_are_rounded_to_8_bits_first_and_grey_is_three_channels() -> None:
    """What a file of 8 bits holds comes through exactly; what lies between its values is what EDM's rounding makes of it."""
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    pixels = values.float() / 127.5 - 1
    found = prepared(pixels)
    assert found.shape == (1, 3, 299, 299)
    assert torch.equal(found[:, 0], found[:, 2])
    matrix = resizing(16, 299)
    assert torch.allclose(found[0, 0], (matrix @ values[0, 0].float() @ matrix.T - 128) / 128, atol=1e-5)
    assert float(found[0, 0, 0, 0]) == -1
    noise = (torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.9 / 127.5
    assert torch.equal(prepared((pixels + noise).clamp(-1, 1)), found)


def test_a_word_of_a_recipe_names_the_network_and_the_files_content(file: Path) -> None:
    found = load_network(f"inception:{file}")
    assert (found.metric, found.sha256, found.pixel_shape) == ("FID-Inception", sha256_file(file), None)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def without(name: str) -> Callable[[Path], None]:
    return lambda path: torch.save({key: value for key, value in random_state().items() if key != name}, path)


def changed(name: str, value: Tensor) -> Callable[[Path], None]:
    return lambda path: torch.save(random_state() | {name: value}, path)


def script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


BIAS = "Mixed_6b.branch7x7_2.bn.bias"
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: None, "does not exist; give pytorch-fid's"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
    "a pipe": (lambda path: os.mkfifo(path), "it is not a file but a pipe"),
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "a page": (lambda path: path.write_text("<!DOCTYPE html><title>Not found"), "is a web page; download the file itself"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "is a pointer of git-LFS"),
    "a pickle with code": (
        lambda path: path.write_bytes(pickle.dumps(Hostile())),
        "is a pickle of objects, of which nothing was run",
    ),
    "code in a state dict": (lambda path: torch.save({"fc.bias": Hostile()}, path), "asks for (posix|nt).system"),
    "a program": (script, "is a TorchScript archive"),
    "text": (lambda path: path.write_text("weights, please"), "cannot be read as Inception's weights"),
    "half of it": (lambda path: path.write_bytes(b"PK\3\4" + bytes(1000)), "cannot be read as Inception's weights"),
    "a list": (lambda path: torch.save([torch.zeros(1)], path), "holds no state dict"),
    "nested": (lambda path: torch.save({"state_dict": {"a": torch.zeros(1)}}, path), "holds no state dict"),
    "another network": (lambda path: torch.save({"a": torch.zeros(1)}, path), "lacks Conv2d_1a_3x3.conv.weight"),
    "a tensor less": (without(BIAS), f"lacks {BIAS}"),
    "a tensor more": (changed("AuxLogits.fc.bias", torch.zeros(1000)), r"has AuxLogits\.fc\.bias, which .* has not"),
    "torchvision's classes": (changed("fc.bias", torch.zeros(1000)), r"fc\.bias is float32 \(1000,\), not float \(1008,\)"),
    "whole numbers": (changed("fc.bias", torch.zeros(1008).long()), r"fc\.bias is int64"),
    "no numbers": (changed("fc.bias", torch.full((1008,), torch.nan)), "not finite"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_not_the_one_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = HOSTILE[name]
    make(path := tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        load_inception(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_counters_of_norms_may_be_missing_and_halves_will_do(tmp_path: Path) -> None:
    """As older files have it."""
    state = {name: value.half() for name, value in random_state().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network, _ = load_inception(tmp_path / "old.pth")
    assert next(network.parameters()).dtype == torch.float32
