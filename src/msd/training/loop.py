"""The loop: runs a stage's turns and hands each step's record to callbacks. It never learns which stage it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from msd.errors import TrainingError
from msd.training.roles import Role

MAX_NON_FINITE = 10
"""Non-finite gradients that are skipped before a training is given up."""


@dataclass(frozen=True)
class Loss:
    """A scalar to descend, and the named parts of it that are worth a curve."""

    value: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One optimiser step of one role. `loss` is called when the turn comes, after the turns before it have been taken."""

    role: str
    loss: Callable[[], Loss]


class Stage(Protocol):
    """A training phase: it declares roles and says whose turn it is; it never steps an optimiser."""

    name: str
    num_steps: int

    @property
    def roles(self) -> Mapping[str, Role[Any]]: ...

    def turns(self, generator: torch.Generator) -> Iterable[Turn]:
        """The turns of one step, in order. All randomness comes from `generator`."""
        ...


Record = dict[str, float]
Callback = Callable[[int, Record], None]
"""Called after each step with the number of finished steps and that step's losses and gradient norms by name."""


def run_stage(stage: Stage, generator: torch.Generator, *, start: int = 0, callbacks: Iterable[Callback] = ()) -> None:
    """Run steps `start` to `stage.num_steps`. Raises TrainingError when gradients keep being non-finite."""
    num_non_finite = 0
    callbacks = tuple(callbacks)
    for step in range(start, stage.num_steps):
        record: Record = {}
        for turn in stage.turns(generator):
            loss = turn.loss()
            norm = stage.roles[turn.role].step(loss.value)
            num_non_finite += not math.isfinite(norm)
            record[f"{turn.role}/loss"] = float(loss.value.detach())
            record[f"{turn.role}/gradient_norm"] = norm
            record.update({f"{turn.role}/{name}": float(part.detach()) for name, part in loss.parts.items()})
        if num_non_finite > MAX_NON_FINITE:
            raise TrainingError(
                f"stage {stage.name} met {num_non_finite} non-finite gradients by step {step}; "
                "lower the learning rates (e.g. --set dm.learning_rate=3e-4) and start again."
            )
        for callback in callbacks:
            callback(step + 1, record)
