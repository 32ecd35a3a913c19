"""What each kind of network is made of, by its configuration alone; a new kind is a line here. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msd.networks.anatomy import KIND as UNET
from msd.networks.anatomy import read_anatomy
from msd.networks.song_config import KIND as SONG
from msd.networks.song_config import SongConfig

DIT = "dit"
"""The kind of network that a diffusion transformer for classes is."""
NULL_LABELS = {DIT: "num_embeds_ada_norm"}
"""By the kind of network, the key of its configuration that says which label stands for no class, as guidance needs."""


class Foreseen(Protocol):
    """As much of a network as a plan asks for before it is built."""

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def has_mid(self) -> bool: ...

    def num_parameters(self) -> int: ...


ANATOMIES: dict[str, Callable[[Mapping[str, Any]], Foreseen]] = {UNET: read_anatomy, SONG: SongConfig.read}
"""How each kind's configuration is read; raises WeightsError for one that cannot be foreseen."""
