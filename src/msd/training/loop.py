"""The loop: yields each step of a stage after taking its turns. It never learns which stage it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from msd.diffusion.draw import Draw
from msd.recipe import STUDENT
from msd.training.ahead import Reads, reading_ahead
from msd.training.engine import Engine
from msd.training.passes import Pass
from msd.training.roles import Role
from msd.training.watch import LOOK_EVERY, Watch

Record = dict[str, Tensor]
"""A step's losses and gradient norms by name, scalars still on the device."""


@dataclass(frozen=True)
class Loss:
    """A scalar to descend, and numbers worth a curve: parts of it, or what was found on the way.

    A name with a role before a slash is recorded as that role's, others as the turn's first role's.
    """

    value: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One optimiser step of `roles` from one loss, which is called when the turn comes, after the turns before it."""

    roles: tuple[str, ...]
    loss: Callable[[], Loss]


class Stage:
    """A training phase: it declares roles and says whose turn it is; it never steps an optimiser.

    A subclass sets `name`, `num_steps`, `roles` and `batch_size`, yields `turns`, and says which `passes` these are;
    `delivers` names the role whose average is the stage's product.
    """

    name: str
    num_steps: int
    batch_size: int
    delivers: str = STUDENT
    roles: Mapping[str, Role[Any]]
    reads: Reads[Any] | None = None
    """What its steps begin with, where they read anything: `turns` asks it once, before all else that it draws."""

    @cached_property
    def watch(self) -> Watch:
        """What is known of how it goes; saved with the roles."""
        return Watch(self.name)

    def turns(self, draw: Draw) -> Iterable[Turn]:
        """The turns of one step, in order, for the rows of the batch that `draw` draws: all randomness comes from it.

        Where a batch is taken in micro-batches this is asked once for each, and their turns are taken together.
        """
        raise TypeError(f"{type(self).__name__} yields no turns")

    def passes(self, step: int) -> Iterable[Pass]:
        """What the turns of step `step` (the first is 0) pass through networks, over all processes: for the books alone."""
        raise TypeError(f"{type(self).__name__} does not say what it computes")

    def forward_flops(self) -> dict[str, int]:
        """Operations of one sample's forward pass through each network that `passes` names. Raises WeightsError."""
        raise TypeError(f"{type(self).__name__} does not say what its networks cost")

    def derived(self, record: Record) -> Record:
        """What follows from a step's record and is worth a curve too: quotients, since losses and parts are averaged
        over the processes by then."""
        return {}

    def finished(self, step: int) -> bool:
        """Whether the stage may end after `step` steps, before its number of steps is reached."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What the stage must keep beside its roles to go on after a stop: plain values and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise TypeError(f"{type(self).__name__} keeps no state, but got {sorted(state)}")


def steps(stage: Stage, engine: Engine, seed: int, *, start: int = 0, attempt: int = 0) -> Iterator[tuple[int, Record]]:
    """Take steps `start` to `stage.num_steps`, yielding (number of finished steps, record) after each.

    The caller reports, saves and stops between steps. Raises TrainingError when it diverges or stands still
    (`training.watch`).
    """
    engine.check_batch(stage.batch_size)
    stage.watch.begin(stage.roles)

    def draws(step: int) -> list[Draw]:
        return [Draw(seed, stage.name, step, attempt, piece, engine.device) for piece in engine.slices]

    with reading_ahead(stage.reads, draws, stage.num_steps, engine.copies()) as draws_of:
        for step in range(start, stage.num_steps):
            if stage.finished(step):
                return
            record: Record = {}
            for turn in zip(*(stage.turns(draw) for draw in draws_of(step)), strict=True):
                record |= take_turn(turn, stage.roles, engine)
            record |= stage.derived(record)
            stage.watch.see(step + 1, record)
            if (step + 1) % LOOK_EVERY == 0 or step + 1 == stage.num_steps:
                stage.watch.look(stage.roles)
            yield step + 1, record


def take_turn(turn: Sequence[Turn], roles: Mapping[str, Role[Any]], engine: Engine) -> Record:
    """Take one turn, given once for each micro-batch, with its own rows of the batch; returns its losses and norms."""
    trained = turn[0].roles
    for name, role in roles.items():
        role.activate(name in trained)
    found: list[Record] = []

    def asked(loss: Callable[[], Loss]) -> Tensor:
        given = loss()
        found.append({name: part.detach() for name, part in {"loss": given.value, **given.parts}.items()})
        return given.value

    norms = engine.backward((partial(asked, one.loss) for one in turn), [roles[name] for name in trained])
    record = engine.mean_over_ranks(
        {name if "/" in name else f"{trained[0]}/{name}": value for name, value in _mean(found).items()}
    )
    for name, norm in zip(trained, norms, strict=True):
        roles[name].step(norm)
        record[f"{name}/gradient_norm"] = norm
    return record


def _mean(records: Sequence[Record]) -> Record:
    """Of each name over those that have it: what is looked at once a step is in the first alone."""
    if len(records) == 1:
        return records[0]
    names = dict.fromkeys(name for record in records for name in record)
    return {name: torch.stack([record[name] for record in records if name in record]).mean(0) for name in names}
