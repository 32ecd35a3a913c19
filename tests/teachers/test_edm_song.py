"""EDM's DDPM++ and NCSN++ checkpoints: the same to rounding as the network that was pickled, or refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from edm_files import EDMPrecond, save_edm
from msd.errors import WeightsError
from msd.networks.folder import load_denoiser
from msd.networks.song import SongUNet, build_song
from msd.networks.song_config import SongConfig
from msd.teachers.converted import convert
from msd.teachers.edm import read_edm
from song_files import CIFAR, DDPMPP, NCSNPP, song_network

LEVELS = (0.002, 0.02, 0.5, 5.0, 80.0)


def largest_difference(network: Any, denoiser: Any, size: int, channels: int, labels: int) -> float:
    """Of the raw networks' answers, relative to their size, over noise levels of EDM's range and every label; the reference
    computes in float64."""
    worst, generator, exact = 0.0, torch.Generator().manual_seed(5), copy.deepcopy(network.model).double()
    keys = torch.arange(labels)
    for level in LEVELS:
        x = torch.randn(labels, channels, size, size, generator=generator)
        noise = torch.full((labels,), level).log() / 4
        with torch.no_grad():
            wanted = exact(x.double(), noise.double(), torch.eye(labels, dtype=torch.float64))
            found = denoiser.network(x, noise, keys)
            # And through the preconditioning, as it is called.
            sigma = torch.full((labels,), level)
            outer = (network(x * level, sigma, keys) - denoiser(x * level, sigma, keys)).abs().max()
        worst = max(worst, float((found - wanted).abs().max() / wanted.std()), float(outer))
    return worst


@pytest.mark.parametrize(
    "arguments",
    [
        DDPMPP,
        NCSNPP,
        DDPMPP | {"model_channels": 20, "channel_mult": (1, 3), "num_blocks": 2, "attn_resolutions": (8, 4)},
        NCSNPP | {"model_channels": 20, "channel_mult": (2, 1, 3), "size": 16, "channels": 3, "attn_resolutions": (16, 8)},
        NCSNPP | {"channel_mult": (2,), "attn_resolutions": ()},
        DDPMPP | {"resample_filter": [1, 3, 3, 1], "channel_mult": (1, 1, 1), "augment_dim": 9},
        NCSNPP | {"resample_filter": [1, 1], "model_channels": 64},
    ],
    ids=["ddpm++", "ncsn++", "odd widths", "odd widths, three levels", "one level", "wide filter", "narrow filter"],
)
def test_a_checkpoint_is_the_network_that_was_pickled(tmp_path: Path, arguments: dict[str, Any]) -> None:
    network = song_network(labels=5, **arguments)
    path, folder = save_edm(tmp_path / "edm.pkl", network), tmp_path / "teacher"
    found = read_edm(path)
    size, channels = arguments.get("size", 8), arguments.get("channels", 1)
    assert largest_difference(network, found.denoiser(path), size, channels, 5) < 1e-5
    convert(path, folder)
    assert largest_difference(network, load_denoiser(folder), size, channels, 5) < 1e-5
    assert found.num_parameters == SongConfig.read(found.config).num_parameters()


@pytest.mark.parametrize(
    ("arguments", "noise", "published"), [(DDPMPP, 128, 55_735_299), (NCSNPP, 256, 56_400_643)], ids=["ddpm++", "ncsn++"]
)
def test_the_networks_of_cifar_have_the_published_size(arguments: dict[str, Any], noise: int, published: int) -> None:
    with torch.device("meta"):
        theirs = song_network(labels=10, **(CIFAR | arguments))
    assert sum(value.numel() for value in theirs.parameters()) == published
    given = {key: value for key, value in theirs.model._init_kwargs.items() if key not in ("augment_dim", "label_dropout")}
    config = SongConfig.read(given)
    with torch.device("meta"):
        ours = SongUNet(config)
    fixed = 128 if config.embedding_type == "fourier" else 0  # random frequencies, no parameters there
    assert sum(value.numel() for value in ours.parameters()) == config.num_parameters()
    # A bias of the labels is in their table, and the augmentation's nine labels are left out.
    assert config.num_parameters() == published + fixed - (1 + 9) * noise


def network_of(base: dict[str, Any] | None = None, **changes: Any) -> EDMPrecond:
    """Its arguments as of another network than its weights."""
    network = song_network(**(base or {}))
    network.model._init_kwargs |= changes
    return network


def precond_of(**changes: Any) -> EDMPrecond:
    network = song_network()
    vars(network).update(changes)
    return network


def with_weights(change: Any, **arguments: Any) -> EDMPrecond:
    network = song_network(**arguments)
    with torch.no_grad():
        change(network.model)
    return network


def _other_filter(model: Any) -> None:
    model.enc["4x4_down"].conv0.resample_filter.data = torch.full((1, 1, 2, 2), 0.5)


def _without(name: str) -> Any:
    def change(model: Any) -> None:
        part, _, leaf = name.rpartition(".")
        model.get_submodule(part)._parameters[leaf] = None

    return change


def _without_module(name: str) -> Any:
    return lambda model: setattr(model, name, None)


def _with_module(name: str, part: str = "") -> Any:
    return lambda model: model.get_submodule(part).add_module(name, torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: network_of(encoder_type="skip"),
            r"encoder_type 'skip' is not known here \(known: 'standard', 'r",
        ),
        (lambda: network_of(decoder_type="skip"), "decoder_type 'skip' is not known here"),
        (lambda: network_of(embedding_type="zero"), "embedding_type 'zero' is not known here"),
        (lambda: network_of(embedding_type=["fourier"]), "embedding_type .* is not known here"),
        (lambda: network_of(resample_filter=[1, 2, 1]), r"resample_filter \[1, 2, 1\] is not known here"),
        (lambda: network_of(resample_filter=[1, 3, 3, 1]), "resample_filter is not the filter"),
        (lambda: network_of(resample_filter="box"), "resample_filter 'box' is of type str"),
        (lambda: network_of(channel_mult=[]), "channel_mult has no levels"),
        (lambda: network_of(channel_mult=[1, 2, 2, 2, 2]), "img_resolution 8 cannot be halved 4 times"),
        (lambda: network_of(channel_mult=[1] * 10**6), "channel_mult has 1000000 entries"),
        (lambda: network_of(channel_mult=[1, 2.5]), "an entry of channel_mult 2.5 is of type float"),
        (lambda: network_of(channel_mult=None), "channel_mult None is of type NoneType"),
        (lambda: network_of(model_channels=2**40), "model_channels 1099511627776 is out of range"),
        (lambda: network_of(model_channels=2**16, channel_mult=[1, 2**16]), "more than any network has"),
        (lambda: network_of(model_channels=2**14), "have shape"),
        (lambda: network_of(model_channels=True), "model_channels True is of type bool"),
        (lambda: network_of(model_channels=2), "2 channels cannot hold sines and cosines"),
        (lambda: network_of(model_channels=18), "18 channels cannot be divided into 4 groups"),
        (lambda: network_of(model_channels=68, channel_mult=[1, 1]), "136 channels cannot be divided into 32 groups"),
        (lambda: network_of(num_blocks=2**20), "num_blocks 1048576 is out of range; give a whole number from 1 to 64"),
        (lambda: network_of(num_blocks=2), "lacks the weights of"),
        (lambda: network_of(channel_mult_noise=2), r"map_label\.weight have shape \(8, 10\), not \(16, 10\)"),
        (lambda: network_of(attn_resolutions="all"), "attn_resolutions 'all' is of type str"),
        (
            lambda: network_of(attn_resolutions=[]),
            r"has weights of down\.1\.blocks\.0\.norm2\.bias, which",
        ),
        (lambda: network_of(dropout="much"), "dropout 'much' is of type str"),
        (lambda: network_of(depth=3), "a SongUNet has no argument 'depth'"),
        (lambda: network_of(encoder_type="residual"), r"lacks the weights of down\.0\.aside\.bias"),
        (lambda: network_of(NCSNPP, encoder_type="standard"), r"has weights of down\.0\.aside"),
        (lambda: network_of(NCSNPP, embedding_type="positional"), "has weights of frequencies"),
        (lambda: precond_of(label_dim=0), r"is unconditional \(label_dim 0\)"),
        (lambda: precond_of(label_dim=2**19), r"map_label\.weight have shape \(8, 10\), not \(8, 524288\)"),
        (lambda: precond_of(img_channels=3), r"conv_in\.weight have shape \(8, 1, 3, 3\), not \(8, 3, 3, 3\)"),
        (lambda: precond_of(img_resolution=16), "no place for dec.8x8_aux_conv.weight"),
        (lambda: with_weights(_other_filter), r"resample_filter is not the filter \[1, 1\]"),
        (lambda: with_weights(_without("map_label.bias")), r"lacks the weights of map_label\.bias"),
        (
            lambda: with_weights(_without_module("map_label")),
            r"lacks the weights of class_embedding\.weight",
        ),
        (
            lambda: with_weights(_without("dec.8x8_up.affine.weight")),
            r"lacks the weights of up\.0\.doubling\.affine\.w",
        ),
        (lambda: with_weights(lambda model: model.map_layer0.weight.fill_(float("nan"))), "embed0.weight are not finite"),
        (
            lambda: with_weights(lambda model: model.register_module("extra", torch.nn.Linear(2, 2))),
            "has no place for extra",
        ),
        (lambda: with_weights(_with_module("4x4_aux_skip", "enc")), "has no place for enc.4x4_aux_skip"),
    ],
)
def test_what_is_not_known_exactly_is_refused_by_name(tmp_path: Path, make: Any, message: str) -> None:
    path, folder = save_edm(tmp_path / "edm.pkl", make()), tmp_path / "teacher"
    with pytest.raises(WeightsError, match=message):
        convert(path, folder)
    assert not folder.exists()


def test_a_folder_s_configuration_is_checked_as_a_file_s(tmp_path: Path) -> None:
    config = SongConfig(img_resolution=8, in_channels=1, out_channels=1, label_dim=10, channel_mult=(1, 2)).to_json()
    assert SongConfig.read(config | {"_class_name": "SongUNet"}).to_json() == config
    for change, message in (
        ({"label_dim": None}, "label_dim None is of type"),
        ({"encoder_type": "skip"}, "encoder_type 'skip' is not known here"),
        ({"levels": 3}, "has no argument 'levels'"),
    ):
        with pytest.raises(WeightsError, match=message):
            build_song(config | change)
    del config["out_channels"]
    with pytest.raises(WeightsError, match="has no out_channels"):
        build_song(config)
