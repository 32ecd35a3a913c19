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
from msd.networks.song import SongUNet
from msd.networks.song_config import SongConfig
from msd.teachers.converted import convert, read_foreign
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
