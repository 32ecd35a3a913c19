"""A role: one network in a stage, with its optimiser, its average and its learning-rate schedule. Made by `Engine.role`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from msd.recipe import RoleSection
from msd.training.bundle import RoleWeights

Network = TypeVar("Network", bound=nn.Module)
UNFUSED = ("mps", "meta")
"""Devices without a fused kernel of Adam; on the latter nothing is trained."""


def _average(decay: float):
    """EMA with a warm-up, so that a short training's average forgets its start: decay_n = min(decay, (1+n)/(10+n))."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        number = int(num_averaged)
        weight = 1 - min(decay, (1 + number) / (10 + number))
        for average, value in zip(averaged, current, strict=True):
            average.lerp_(value, weight)

    return update


class Role(Generic[Network]):
    """A trained network. Losses call the role itself, so that what wraps the module for many processes is not bypassed.

    Only parameters that ask for gradients when the role is made are trained. Outside its own turns a role is frozen:
    gradients pass through it to its input and leave nothing on it. `rate` is a pure function of the number of updates done.
    """

    def __init__(self, module: Network, wrapped: nn.Module, settings: RoleSection, num_updates: int):
        self.module = module
        self.settings = settings
        self.num_updates = 0
        self._wrapped = wrapped
        self._planned = num_updates
        self.parameters: list[nn.Parameter] = [parameter for parameter in module.parameters() if parameter.requires_grad]
        device = self.parameters[0].device
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=settings.learning_rate, betas=(settings.adam_beta1, 0.999), fused=device.type not in UNFUSED
        )
        self.num_skipped = torch.zeros((), device=device)
        """Updates left out since their gradient was not finite, over the whole stage; stays on the device."""
        self.average = None
        if settings.ema_decay is not None:
            self.average = AveragedModel(module, multi_avg_fn=_average(settings.ema_decay)).requires_grad_(False).eval()
        self._active = True
        self.activate(False)

    def __call__(self, *inputs: Any) -> Tensor:
        return (self._wrapped if self._active else self.module)(*inputs)

    def unshared(self) -> AbstractContextManager[None]:
        """In it, gradients stay in this process; what is left of them is shared with the first that is taken outside."""
        return self._wrapped.no_sync() if isinstance(self._wrapped, DistributedDataParallel) else nullcontext()

    def activate(self, active: bool) -> None:
        """Make this role one that the coming loss trains, or freeze it."""
        if active != self._active:
            self._active = active
            for parameter in self.parameters:
                parameter.requires_grad_(active)

    def rate(self) -> float:
        """Linear warm-up, then a cosine from the peak to `final_rate` of it."""
        settings = self.settings
        warmup = min(1.0, (self.num_updates + 1) / (settings.warmup_updates + 1))
        progress = min(1.0, self.num_updates / self._planned)
        cosine = settings.final_rate + (1 - settings.final_rate) * (1 + math.cos(math.pi * progress)) / 2
        return settings.learning_rate * warmup * cosine

    def step(self, norm: Tensor) -> None:
        """One update from the gradients that `Engine.backward` left, whose norm before clipping was `norm`.

        A gradient that is not finite changes no weight; that is decided on the device, so nothing waits for it.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        skipped = (~norm.isfinite()).float()
        # The fused kernel leaves everything as it is where this is 1.
        self.optimiser.found_inf = skipped  # pyright: ignore[reportAttributeAccessIssue]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.num_skipped += skipped
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.num_updates += 1

    def result(self) -> Network:
        """What the stage delivers of this role: the average where there is one."""
        return self.module if self.average is None else cast(Network, self.average.module)

    def weights(self) -> RoleWeights:
        """What the stage hands on of this role: raw weights to go on training from, and the average."""
        return RoleWeights(self.module.state_dict(), None if self.average is None else self.average.module.state_dict())

    def is_finite(self) -> bool:
        """Whether every weight, raw and averaged, is a finite number."""
        states = [self.module, *([self.average.module] if self.average is not None else [])]
        tensors = [tensor for state in states for tensor in state.state_dict().values() if tensor.is_floating_point()]
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def state_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "num_updates": self.num_updates,
            "num_skipped": self.num_skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.num_updates = state["num_updates"]
        self.num_skipped.copy_(state["num_skipped"])
