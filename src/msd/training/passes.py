"""What a stage's steps compute: which networks samples pass through, how far back, and the arithmetic that this comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msd.training.loop import Stage

ALL, INPUT = 2, 1
"""What a backward pass costs, in forward ones: gradients of weights and input alike, or of the input (or weights) alone."""


@dataclass(frozen=True)
class Pass:
    """`num` samples through a stage's `network`, by its name in `Stage.forward_flops`, and back."""

    network: str
    num: int
    backward: int = 0
    """In forward passes: ALL, INPUT, or 0 where nothing is differentiated."""
    forward: int = 1
    """0 where the forward pass is counted elsewhere: of features that are a part of it."""


def num_flops(passes: Iterable[Pass], forward_flops: Mapping[str, int]) -> int:
    """Floating-point operations of `passes`; `forward_flops` are those of one sample's forward pass, by network."""
    return sum(one.num * (one.forward + one.backward) * forward_flops[one.network] for one in passes)


def stage_flops(stage: Stage, num_steps: int) -> int:
    """Of the first `num_steps` steps of a stage. Norms, activations, optimisers, averages do not count."""
    flops = stage.forward_flops()
    return sum(num_flops(stage.passes(step), flops) for step in range(num_steps))
