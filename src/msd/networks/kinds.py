"""The kinds of network that a saved denoiser may hold; a new kind is a line here, and an `Adapter` in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msd.networks.adapter import Adapter
from msd.networks.build import LabelledUNet, build_unet
from msd.networks.dit import LabelledDiT, build_dit
from msd.networks.song import SongAdapter, build_song

BUILDERS: dict[str, Callable[[dict[str, Any]], Adapter]] = {
    LabelledUNet.kind: build_unet,
    LabelledDiT.kind: build_dit,
    SongAdapter.kind: build_song,
}
"""How each is built from its configuration."""
