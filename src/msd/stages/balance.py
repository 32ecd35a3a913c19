"""The watch over a stage with a discriminator: warns when that wins, or learns nothing, for long."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msd.errors import warn
from msd.training.watch import LOOK_EVERY, Seen, Watch

WINS = 0.95
"""Share of right answers above which a discriminator's gradient says little of how to become real."""
GUESSES = 0.53
"""Share of right answers below which it has learned next to nothing: half, and twice the deviation of a look's mean over
batches of 64. On digits it ended at 0.57 to 0.59 where it raised recall by 0.1, at 0.52 to 0.54 where the student was near
the images already."""
LONG = 5
"""Looks in a row, of `LOOK_EVERY` steps each, that are long. The prototype's whole stage had ten."""


class BalanceWatch(Watch):
    """A `Watch` that also follows the discriminator's `accuracy`, a name in the record, and warns once of each extreme.

    The first `num_warmup` steps do not count. Only a process that `speaks` warns; what was said is saved, so that a resumed
    training does not say it again.
    """

    def __init__(self, stage: str, accuracy: str, measures: Collection[str], *, num_warmup: int = 0, speaks: bool = True):
        super().__init__(stage, measures)
        self._accuracy, self._num_warmup, self._speaks = accuracy, num_warmup, speaks
        self._in_a_row = {"wins": 0, "guesses": 0}

    def judge(self, records: Sequence[Seen]) -> None:
        values = [record[self._accuracy] for step, record in records if step > self._num_warmup and self._accuracy in record]
        if not values:
            return
        mean = sum(values) / len(values)
        for what, holds in {"wins": mean > WINS, "guesses": mean < GUESSES}.items():
            # Beyond LONG the count stands still, so it is passed once; only a break before that begins it anew.
            if self._in_a_row[what] < LONG:
                self._in_a_row[what] = self._in_a_row[what] + 1 if holds else 0
                if self._in_a_row[what] == LONG and self._speaks:
                    warn(self._sentence(what, mean, records[-1][0]))

    def _sentence(self, what: str, accuracy: float, step: int) -> str:
        stage = self._stage
        advice = {
            "wins": f"its gradient then says little of how to become real: lower {stage}.discriminator_learning_rate, raise "
            f"{stage}.discriminator_sigma_high, or raise {stage}.r1_weight.",
            "guesses": "either nothing tells the student's images from real ones any more, or it learns nothing: raise "
            f"{stage}.discriminator_learning_rate or {stage}.discriminator_weight, or lower "
            f"{stage}.discriminator_sigma_high.",
        }[what]
        return (
            f"for {LONG * LOOK_EVERY} steps, to step {step}, the discriminator of stage {stage} has told real images from "
            f"the student's in {accuracy:.0%} of cases; {advice}"
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"in_a_row": dict(self._in_a_row)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._in_a_row = dict(state["in_a_row"])
