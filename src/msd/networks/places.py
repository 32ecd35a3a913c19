"""Places inside a network that can be tapped: what they are called, and how large features are there. No torch here."""

from __future__ import annotations

from collections.abc import Collection

from msd import checks
from msd.errors import RecipeError
from msd.networks.anatomies import Foreseen

BOTTLENECK = "bottleneck"
"""The innermost place: a U-Net's middle block. DMD2 puts its discriminator there."""


def place_names(num_levels: int, *, has_mid: bool) -> list[str]:
    """Of a U-Net, from input to output: `down.N` is the N-th block on the way in, after its halving, `up.N` the N-th on the
    way out."""
    down, up = ([f"{way}.{number}" for number in range(num_levels)] for way in ("down", "up"))
    return [*down, *([BOTTLENECK] if has_mid else []), *up]


def place_shapes(network: Foreseen, height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """Shape `[C, H, W]` of a sample's features at each place, for samples of that height and width; an odd side may be one
    larger there than is said here."""
    last = len(network.widths) - 1
    sizes = [(height >> level, width >> level) for level in range(last + 1)]
    down = [(network.widths[level], *sizes[min(level + 1, last)]) for level in range(last + 1)]
    middle = [(network.widths[last], *sizes[last])] if network.has_mid else []
    up = [(network.widths[level], *sizes[max(level - 1, 0)]) for level in range(last, -1, -1)]
    names = place_names(last + 1, has_mid=network.has_mid)
    return dict(zip(names, [*down, *middle, *up], strict=True))


def check_place(name: str, known: Collection[str]) -> None:
    """Raises RecipeError when a tap is none of the known places, naming those."""
    if name not in known:
        raise RecipeError(
            f"the network has no tap {checks.shown(name)}; it has {', '.join(known)}: set adm.tap to one of these."
        )
