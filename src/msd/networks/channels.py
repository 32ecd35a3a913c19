"""Which channels of a teacher a smaller student keeps: how much each matters, and the choice among them.

A channel matters as its weights are large: the squares of all weights that write to it or read from it, each tensor's
divided by their mean over channels so that a large tensor does not outvote the rest. Magnitude of filters as in Li et al.
2017, "Pruning Filters for Efficient ConvNets" (section 3.1), summed over everything that shares a channel as in Fang et al.
2023, "DepGraph" (section 3.3), since a residual stream can lose a channel only everywhere at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

NOTHING = -1
"""In a selection: a channel of the student's that no channel of the teacher's stands for."""


def magnitude(weights: Iterable[tuple[Tensor, int]]) -> Tensor:
    """How much each of C channels matters, `[C]` float64, by tensors that touch them, each with the dimension they are."""
    total: Tensor | None = None
    for weight, dimension in weights:
        squares = weight.detach().double().square()
        each = squares.sum([place for place in range(weight.ndim) if place != dimension])
        each = each / each.mean().clamp_min(1e-30)
        total = each if total is None else total + each
    assert total is not None, "no tensor touches these channels"
    return total


def strongest(scores: Tensor, num: int, groups: int) -> Tensor:
    """The `num` channels of `[C]` that matter most, `[num]` ascending, equally many of each of `groups` runs of neighbours.

    A group norm of `groups` groups then still divides each channel by the deviation of its old neighbours. `groups` is
    lowered to what divides both C and `num`.
    """
    runs = math.gcd(groups, len(scores), num)
    ranked = scores.reshape(runs, -1).argsort(dim=1, descending=True, stable=True)[:, : num // runs].sort(1).values
    offsets = torch.arange(runs, device=scores.device)[:, None] * (len(scores) // runs)
    return (ranked + offsets).flatten()


def widened(channels: Tensor, size: int) -> Tensor:
    """The places of heads or chunks `channels` `[N]` of `size` each, as channels `[N * size]`."""
    return (channels[:, None] * size + torch.arange(size, device=channels.device)).flatten()


def take(weight: Tensor, dimension: int, selection: Tensor, missing: float = 0.0) -> Tensor:
    """`weight` with its channels of one dimension selected; `missing` where nothing is."""
    taken = weight.index_select(dimension, selection.clamp_min(0))
    lost = (selection == NOTHING).nonzero().flatten()
    return taken.index_fill_(dimension, lost, missing) if len(lost) else taken


def frequency_map(width: int, smaller: int, freq_shift: float) -> Tensor:
    """The teacher's sines and cosines of time in terms of the student's, whose frequencies are others: `[width, smaller]`.

    Frequencies are spread evenly in their logarithm (Ho et al. 2020); one in between two of the student's is shared by both,
    so a layer that read the teacher's features reads about the same from the student's.
    """
    half, small = width // 2, smaller // 2
    result = torch.zeros(width, smaller)
    for place in range(half):
        position = min(place / max(half - freq_shift, 1) * max(small - freq_shift, 1), small - 1)
        low = math.floor(position)
        high = min(low + 1, small - 1)
        for side in range(2):
            result[side * half + place, side * small + low] += 1 - (position - low)
            result[side * half + place, side * small + high] += position - low
    return result
