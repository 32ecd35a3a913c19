"""EDM's checkpoints: read without running them, the same to rounding as the network that was pickled, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edm_files import DhariwalUNet, EDMPrecond, edm_bytes, edm_network, save_edm
from msd.errors import WeightsError
from msd.networks.folder import load_denoiser
from msd.teachers.converted import convert, converted, read_foreign
from msd.teachers.edm import read_edm
from msd.teachers.facts import read_teacher
from msd.teachers.folder import load_teacher

LEVELS = (0.002, 0.02, 0.1, 0.5, 2.5, 20.0, 80.0)


def largest_difference(network: Any, denoiser: Any, size: int, channels: int, labels: int) -> float:
    """Over noise levels of EDM's range and every label."""
    worst, generator = 0.0, torch.Generator().manual_seed(5)
    keys = torch.arange(labels)
    for level in LEVELS:
        x = torch.randn(labels, channels, size, size, generator=generator) * (0.25 + level**2) ** 0.5
        sigma = torch.full((labels,), level)
        with torch.no_grad():
            worst = max(worst, float((network(x, sigma, keys) - denoiser(x, sigma, keys)).abs().max()))
    return worst


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_checkpoint_is_the_network_that_was_pickled(tmp_path: Path, protocol: int) -> None:
    network = edm_network(labels=7)
    path = save_edm(tmp_path / "edm.pkl", network, protocol)
    found = read_edm(path)
    assert found.num_parameters == sum(value.numel() for value in network.parameters())
    assert found.spec.num_conditions == 7
    assert (found.spec.sigma_min, found.spec.sigma_max) == (0.002, 80)
    assert largest_difference(network, found.denoiser(path), 8, 1, 7) < 1e-5


@pytest.mark.parametrize(
    "arguments",
    [
        {"channel_mult": (1, 2, 2), "attn_resolutions": (8, 2), "num_blocks": 2, "channels": 3},
        {"channel_mult": (1,), "attn_resolutions": ()},
        {"size": 16, "attn_resolutions": (16, 8), "augment_dim": 9},
    ],
    ids=["three levels", "one level", "attention everywhere"],
)
def test_other_shapes_are_the_same_too(tmp_path: Path, arguments: dict[str, Any]) -> None:
    network = edm_network(labels=3, **arguments)
    path = save_edm(tmp_path / "edm.pkl", network)
    size, channels = arguments.get("size", 8), arguments.get("channels", 1)
    assert largest_difference(network, read_edm(path).denoiser(path), size, channels, 3) < 1e-5


def test_a_checkpoint_is_a_teacher_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Converted once, into the cache; known by content, with its origin and licence."""
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))
    network = edm_network()
    path = save_edm(tmp_path / "edm net.pkl", network)
    teacher = load_teacher(path)
    assert largest_difference(network, teacher.denoiser, 8, 1, 10) < 1e-5
    assert teacher.licence == "CC BY-NC-SA 4.0"
    assert teacher.facts.origin is not None
    assert (teacher.facts.origin.format, teacher.facts.origin.file) == ("EDM pickle", "edm net.pkl")
    folder = converted(path)
    weights = folder / "diffusion_pytorch_model.safetensors"
    before = weights.stat().st_mtime_ns
    assert read_teacher(path).hash == teacher.hash
    assert weights.stat().st_mtime_ns == before
    weights.write_bytes(weights.read_bytes()[:-1])
    assert read_teacher(path).hash == teacher.hash
    assert "is converted again" in capsys.readouterr().err
    save_edm(path, edm_network(seed=1))
    assert read_teacher(path).hash != teacher.hash


def test_a_converted_folder_loads_as_any_denoiser_and_in_diffusers(tmp_path: Path) -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    network = edm_network(labels=4)
    path, folder = save_edm(tmp_path / "edm.pkl", network), tmp_path / "teacher"
    convert(path, folder, licence="my own")
    assert largest_difference(network, load_denoiser(folder), 8, 1, 4) < 1e-5
    assert read_teacher(folder).licence == "my own"
    assert json.loads((folder / "denoiser.json").read_text())["origin"]["format"] == "EDM pickle"
    model = UNet2DModel.from_pretrained(folder)
    x, keys = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    with torch.no_grad():
        theirs = model(x, torch.zeros(4), class_labels=keys, return_dict=False)[0]
        ours = network.model(x, torch.zeros(4), torch.eye(4))
    assert float((theirs - ours).abs().max()) < 1e-5


def precond_of(**changes: Any) -> EDMPrecond:
    network = edm_network()
    vars(network).update(changes)
    return network


def renamed(kind: str) -> EDMPrecond:
    network = edm_network()
    network.__class__ = type(kind, (EDMPrecond,), {})
    return network


def network_of(**changes: Any) -> EDMPrecond:
    """Its U-Net made as by other arguments than its weights."""
    network = edm_network()
    network.model._init_kwargs |= changes
    return network


def with_weights(change: Any) -> EDMPrecond:
    network = edm_network()
    with torch.no_grad():
        change(network.model)
    return network


def _sharp(model: DhariwalUNet) -> None:
    model.enc["4x4_down"].conv0.resample_filter.data = torch.tensor([1.0, 3, 3, 1]).outer(torch.ones(4))[None, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: renamed("VPPrecond"), "holds a VPPrecond; only EDM's own preconditioning is known"),
        (lambda: renamed("VEPrecond"), "holds a VEPrecond"),
        (lambda: renamed("iDDPMPrecond"), "holds a iDDPMPrecond"),
        (lambda: precond_of(label_dim=0), r"is unconditional \(label_dim 0\)"),
        (lambda: precond_of(label_dim="ten"), "label_dim is 'ten', not a whole number above 0"),
        (lambda: precond_of(label_dim=True), "label_dim is True"),
        (lambda: precond_of(sigma_data=float("nan")), "sigma_data is nan, not a number"),
        (lambda: precond_of(sigma_data=-1.0), "sigma_data"),
        (lambda: precond_of(img_resolution=9), "img_resolution is 9, not a size that can be halved 1 times"),
        (lambda: precond_of(img_channels=3), r"conv_in\.weight have shape \(128, 1, 3, 3\), not \(128, 3, 3, 3\)"),
        (lambda: precond_of(label_dim=11), r"class_embedding\.weight have shape \(10, 512\), not \(11, 512\)"),
        (lambda: network_of(channel_mult=[2, 1]), r"channel_mult is \[2, 1\], not a list that begins with 1"),
        (lambda: network_of(channel_mult=[]), r"channel_mult is \[\]"),
        (lambda: network_of(channel_mult=[1, 1, 1]), "a UNet2DModel has no place for model|lacks the weights|no place for"),
        (lambda: network_of(model_channels=96), "a level of 96 channels, whose norms have other groups"),
        (lambda: network_of(model_channels=2**40), "model_channels is"),
        (lambda: network_of(num_blocks=2), "lacks the weights of"),
        (lambda: network_of(num_blocks=2**20), "num_blocks is 1048576, not a whole number up to 64"),
        (lambda: network_of(attn_resolutions="all"), "attn_resolutions is 'all'"),
        (lambda: network_of(attn_resolutions=[8]), "no place for"),
        (lambda: network_of(dropout=2), "dropout is 2, not from 0 to below 1"),
        (lambda: with_weights(lambda model: model.out_conv.weight.fill_(float("nan"))), "conv_out.weight are not finite"),
        (lambda: with_weights(_sharp), "resample_filter is no plain 2x2 average"),
        (lambda: with_weights(lambda model: model.out_norm.register_buffer("more", torch.ones(3))), "weights of conv_norm"),
        (lambda: with_weights(lambda model: model.register_module("extra", torch.nn.Linear(2, 2))), "no place for extra"),
    ],
)
def test_what_is_not_known_exactly_is_refused_by_name(tmp_path: Path, make: Any, message: str) -> None:
    path, folder = save_edm(tmp_path / "edm.pkl", make()), tmp_path / "teacher"
    with pytest.raises(WeightsError, match=message):
        convert(path, folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"G_ema": 1}, r"no network of EDM's under 'ema' \(it holds G_ema\)"),
        ([1, 2], "it holds a list"),
        (7, "it holds a int"),
        ({"ema": {"weight": torch.ones(2)}}, "no network of EDM's under 'ema'"),
        ({"ema": torch.nn.Linear(2, 2)}, "holds a Linear; only EDM's own preconditioning"),
    ],
)
def test_a_pickle_of_something_else_is_no_teacher(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "edm.pkl"
    path.write_bytes(edm_bytes(content))
    with pytest.raises(WeightsError, match=message):
        read_foreign(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"a pointer of git-LFS; fetch .* `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page; download the file itself"),
        (b"PK\x03\x04rest", "is a zip archive, as of torch.save"),
        (b"", "cannot be read as a pickle"),
        (bytes(range(256)) * 4, "cannot be read as a pickle"),
    ],
)
def test_a_file_that_is_something_else_under_that_name_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "edm.pkl"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_foreign(path)
    with pytest.raises(WeightsError, match=r"is of no known format; files that end in \.pkl are read"):
        read_foreign(path.rename(tmp_path / "edm.ckpt"))


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole, path = edm_bytes({"ema": edm_network()}), tmp_path / "edm.pkl"
    for length in (1, 2, 50, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cannot be read as a pickle|asks for"):
            read_foreign(path)
