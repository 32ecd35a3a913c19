"""The watch over a stage: says early that a training diverges or stands still, in which role, why, and what to run next.

It keeps what it has seen on the device and asks for it once in `LOOK_EVERY` steps. It only ever ends a training, it never
changes one; and what it knows is saved with the roles, so that a resumed training is judged as one that never stopped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msd.errors import RecipeError, TrainingError
from msd.recipe import RoleSection, section_of

if TYPE_CHECKING:
    from msd.training.roles import Role

LOOK_EVERY = 10
"""Steps between two looks: each waits for the device."""
MAX_SKIPPED = 10
"""Updates of one role that may be skipped for want of a finite gradient before a training is given up."""
NUM_LAST = 5
"""Non-finite gradients in a row, at a look, after which a role is not expected to come back."""
FAR = 5.0
"""How many times its usual size a loss, the median of a look's steps, is far outside its range. Healthy trainings
of the digits recipe stayed below 0.42 of `UNIT`, one whose critic learned ten times too fast at 1.5."""
NUM_RUNNING = 10
"""Looks after which a loss's usual size is the median of the last ones (twice as many), no longer its size at the start."""
UNIT = 1.0
"""Losses are of order one by construction (weighted denoising, errors of scaled data, normalised gradients). A part that
starts at 0, as matching does while critic and teacher are the same, has no range of its own below this."""
STILL_UPDATES = 20
STILL = 1e-7
"""Relative change of the weights over `STILL_UPDATES` that is none: about one rounding of float32. The digits students and
critics moved 6e-4 and more, and 5e-6 at a thousandth of their rates."""
FULL_RATE = 0.01
"""Share of the peak rate below which a role may stand still, as at the end of a cosine."""
NUM_PROBED = 4096
GRADIENT_NORM = "gradient_norm"

Record = Mapping[str, Tensor | float]
"""A step's losses and gradient norms by name, scalars still on the device; plain where a checkpoint brought them."""
Seen = tuple[int, dict[str, float]]
"""A step and its record, read back."""


def rate_key(stage: str, role: str) -> str:
    """The recipe's key of a role's learning rate: `dm.critic_learning_rate` where the section has one for that role."""
    try:
        fields = section_of(stage).model_fields
    except RecipeError:  # a stage of somebody's own, without a section
        fields = {}
    own = f"{role}_learning_rate"
    return f"{stage}.{own if own in fields else 'learning_rate'}"


def advice(stage: str, role: str, settings: RoleSection, *, faster: bool = False) -> str:
    """What to run next: the key of the role's rate with a value to try, a tenth of the present one (or ten times it), or
    the default where that lies beyond."""
    key = rate_key(stage, role)
    try:
        usual = section_of(stage).model_fields[key.split(".")[1]].default
    except RecipeError:
        usual = None
    rate = settings.learning_rate * (10 if faster else 0.1)
    if isinstance(usual, float):
        rate = max(rate, usual) if faster else min(rate, usual)
    return f"run it again with --set {key}={rate:.2g} and another --out"


class Watch:
    """What the losses, gradients and weights of one stage's roles have been. `see` every step, `look` at some.

    `measures` are names of the stage's record that are no losses, or losses of no usual size: they end nothing.
    """

    def __init__(self, stage: str, measures: Collection[str] = ()):
        self._stage = stage
        self._measures = frozenset(measures)
        self._waiting: list[tuple[int, Record]] = []
        self._usual: dict[str, _Usual] = {}
        self._probes: dict[str, _Probe] = {}

    def begin(self, roles: Mapping[str, Role[Any]]) -> None:
        """Note where the weights stand before the first step; of what a checkpoint brought along, nothing is forgotten."""
        for name, role in roles.items():
            if name not in self._probes:
                self._probes[name] = _Probe.of(role)

    def see(self, step: int, record: Record) -> None:
        """Remember the record of a step; nothing is asked of the device."""
        self._waiting.append((step, record))

    def look(self, roles: Mapping[str, Role[Any]]) -> None:
        """Judge the steps since the last look. Raises TrainingError."""
        records, self._waiting = _on_host(self._waiting), []
        if not records:
            return
        self.judge(records)
        records = [
            (step, {name: value for name, value in record.items() if name not in self._measures}) for step, record in records
        ]
        self._refuse_not_finite(records, roles)
        self._refuse_far(records, roles)
        for name, role in roles.items():
            self._refuse_still(name, role, records)

    def judge(self, records: Sequence[Seen]) -> None:
        """What a stage's own watch has to say of the steps since the last look, its measures included."""

    def _refuse_not_finite(self, records: list[Seen], roles: Mapping[str, Role[Any]]) -> None:
        """Names first the role whose numbers stopped being finite first: the others follow it."""
        bad = [(step, key.split("/")[0]) for step, record in records for key in record if not math.isfinite(record[key])]
        for name in dict.fromkeys(name for _, name in bad):
            role, norms = roles[name], _values(records, f"{name}/{GRADIENT_NORM}")
            skipped, why = int(role.num_skipped), "the rate is too high, or a number in its data is not finite"
            if not role.is_finite():
                what, why = f"weights of the {name} that are not finite", "the rate is too high"
            elif skipped > MAX_SKIPPED:
                what = f"{skipped} non-finite gradients of the {name}"
            elif len(norms) >= NUM_LAST and not any(map(math.isfinite, norms[-NUM_LAST:])):
                what = f"only non-finite gradients of the {name} of late"
            else:
                continue  # a few updates were skipped: the training goes on without them
            since = next(step for step, whose in bad if whose == name)
            again = advice(self._stage, name, role.settings)
            self._refuse(records, f"met {what} (since step {since})", why, again)

    def _refuse_far(self, records: list[Seen], roles: Mapping[str, Role[Any]]) -> None:
        for key in _losses(records):
            values = [value for value in _values(records, key) if math.isfinite(value)]
            if not values:
                continue
            usual = self._usual.setdefault(key, _Usual(values[0]))
            median, reference = statistics.median(values), usual.reference
            if min(median, values[-1]) > FAR * reference:
                name, part = key.split("/")
                # A student descends what its critic tells it, so the loss that shows it need not be the culprit's own.
                culprit = max(roles, key=lambda one: self._probes[one].pace(roles[one]))
                what = f"diverges: the {part} of the {name} is {median:.3g}, usual is {reference:.3g} at most"
                why = f"the rate of the {culprit}, whose weights move fastest, is too high"
                self._refuse(records, what, why, advice(self._stage, culprit, roles[culprit].settings))
            usual.medians = [*usual.medians, median][-2 * NUM_RUNNING :]

    def _refuse_still(self, name: str, role: Role[Any], records: list[Seen]) -> None:
        probe = self._probes[name]
        probe.norm = max([probe.norm, *_values(records, f"{name}/{GRADIENT_NORM}")])
        updates = role.num_updates - probe.num_updates
        if updates < STILL_UPDATES:
            return
        now = _Probe.of(role)
        if now.moved_since(probe) < STILL and role.rate() >= FULL_RATE * role.settings.learning_rate:
            what = f"stands still: {updates} updates of the {name} changed none of its weights"
            if probe.norm == 0:
                again = f"check its data, and that the weights of its losses in {self._stage}.* are not 0"
                self._refuse(records, what, "all its gradients are zero", again)
            again = advice(self._stage, name, role.settings, faster=True)
            self._refuse(records, what, f"its rate of {role.settings.learning_rate:.2g} is too low", again)
        self._probes[name] = now

    def _refuse(self, records: list[Seen], what: str, why: str, again: str) -> None:
        raise TrainingError(f"stage {self._stage} by step {records[-1][0]} {what}; {why}: {again}.")

    def state_dict(self) -> dict[str, Any]:
        """All that a verdict rests on, as plain values and tensors."""
        probes = {name: vars(probe) for name, probe in self._probes.items()}
        usual = {key: vars(one) for key, one in self._usual.items()}
        return {"waiting": _on_host(self._waiting), "usual": usual, "probes": probes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._waiting = list(state["waiting"])
        self._usual = {key: _Usual(**one) for key, one in state["usual"].items()}
        self._probes = {name: _Probe(**probe) for name, probe in state["probes"].items()}


@dataclass
class _Usual:
    """How large one loss usually is: at the start, and in the medians of the last looks."""

    start: float
    medians: list[float] = field(default_factory=list)

    @property
    def reference(self) -> float:
        running = statistics.median(self.medians) if len(self.medians) >= NUM_RUNNING else 0.0
        return max(UNIT, self.start, running)


@dataclass
class _Probe:
    """Some of a role's weights, spread over all of them, after `num_updates`; and the largest gradient norm since."""

    weights: Tensor
    num_updates: int
    norm: float = 0.0

    @classmethod
    def of(cls, role: Role[Any]) -> _Probe:
        """On the role's device."""
        parameters: list[Tensor] = [value for group in role.optimiser.param_groups for value in group["params"]]
        share = max(1, NUM_PROBED // len(parameters))
        some = [value.detach().flatten()[:: max(1, value.numel() // share)][:share] for value in parameters]
        return cls(torch.cat(some).float(), role.num_updates)

    def pace(self, role: Role[Any]) -> float:
        """How far an update has moved the role's weights of late, relative to their norm."""
        updates = role.num_updates - self.num_updates
        return _Probe.of(role).moved_since(self) / updates if updates else 0.0

    def moved_since(self, other: _Probe) -> float:
        """Norm of the change relative to that of the weights."""
        before = other.weights.to(self.weights.device)
        return float((self.weights - before).norm() / self.weights.norm().clamp_min(1e-30))


def _values(records: list[Seen], key: str) -> list[float]:
    return [record[key] for _, record in records if key in record]


def _losses(records: list[Seen]) -> list[str]:
    """The losses in the records; where a role's loss has parts, the parts, as their sum depends on their weights."""
    keys = dict.fromkeys(key for _, record in records for key in record if not key.endswith(f"/{GRADIENT_NORM}"))
    with_parts = {key.split("/")[0] for key in keys if not key.endswith("/loss")}
    return [key for key in keys if not (key.endswith("/loss") and key.split("/")[0] in with_parts)]


def _on_host(waiting: list[tuple[int, Record]]) -> list[Seen]:
    """The records as plain numbers, asked of the device at once; what a checkpoint brought is plain already."""
    tensors = [value.float() for _, record in waiting for value in record.values() if isinstance(value, Tensor)]
    numbers = iter(torch.stack(tensors).tolist() if tensors else ())
    return [
        (step, {key: next(numbers) if isinstance(value, Tensor) else value for key, value in record.items()})
        for step, record in waiting
    ]
