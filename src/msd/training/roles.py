"""A role: one network in a stage, bundled with its optimiser, its average and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


@dataclass(frozen=True)
class RoleSpec:
    """What a stage asks for one of its networks: how fast it learns, whether and how slowly it is averaged."""

    learning_rate: float
    num_updates: int
    """Optimiser steps over the whole stage: the length of the cosine."""
    warmup_updates: int = 0
    final_rate: float = 0.0
    adam_beta1: float = 0.9
    clip_norm: float = 10.0
    ema_decay: float | None = None


def _average(decay: float):
    """EMA with a warm-up, so that a short training's average forgets its start: decay_n = min(decay, (1+n)/(10+n))."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        number = int(num_averaged)
        weight = 1 - min(decay, (1 + number) / (10 + number))
        for average, value in zip(averaged, current, strict=True):
            average.lerp_(value, weight)

    return update


Network = TypeVar("Network", bound=nn.Module)


class Role(Generic[Network]):
    """A trained network. `rate` is a pure function of the number of updates done, so resuming needs no scheduler state."""

    def __init__(self, module: Network, spec: RoleSpec):
        self.module = module.train().requires_grad_(True)
        self.spec = spec
        self.num_updates = 0
        fused = next(module.parameters()).device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.Adam(
            self.module.parameters(), lr=spec.learning_rate, betas=(spec.adam_beta1, 0.999), fused=fused
        )
        self.average = None
        if spec.ema_decay is not None:
            self.average = AveragedModel(module, multi_avg_fn=_average(spec.ema_decay)).requires_grad_(False).eval()

    def rate(self) -> float:
        """Linear warm-up, then a cosine from the peak to `final_rate` of it."""
        spec = self.spec
        warmup = min(1.0, (self.num_updates + 1) / (spec.warmup_updates + 1))
        progress = min(1.0, self.num_updates / spec.num_updates)
        cosine = spec.final_rate + (1 - spec.final_rate) * (1 + math.cos(math.pi * progress)) / 2
        return spec.learning_rate * warmup * cosine

    def step(self, loss: Tensor) -> float:
        """One update from `loss`; returns the gradient norm before clipping. A non-finite gradient changes nothing."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm))
        if math.isfinite(norm):
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate()
            self.optimiser.step()
            if self.average is not None:
                self.average.update_parameters(self.module)
        self.num_updates += 1
        return norm

    def result(self) -> Network:
        """What the stage delivers of this role: the average where there is one."""
        return self.module if self.average is None else cast(Network, self.average.module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.num_updates = state["num_updates"]
