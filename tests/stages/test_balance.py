"""The watch over a discriminator: it warns once of one that wins or guesses for long, and ends nothing."""

from __future__ import annotations

import re

import pytest
import torch

from msd.stages.balance import LONG, BalanceWatch
from msd.training.watch import LOOK_EVERY

NAME = "discriminator/accuracy"


def tell(watch: BalanceWatch, accuracies: list[float], start: int = 0) -> None:
    """One look's worth of steps for each accuracy."""
    for look, accuracy in enumerate(accuracies):
        for step in range(LOOK_EVERY):
            watch.see(start + look * LOOK_EVERY + step + 1, {NAME: torch.tensor(accuracy)})
        watch.look({})


def new_watch(speaks: bool = True) -> BalanceWatch:
    return BalanceWatch("adm", NAME, (NAME,), speaks=speaks)


@pytest.mark.parametrize(
    ("accuracy", "advice"),
    [(0.99, "99% of cases.*lower adm.discriminator_learning_rate"), (0.51, "51% .*raise adm.discriminator_learning_rate")],
)
def test_each_extreme_is_warned_of_once_when_it_lasts(capsys: pytest.CaptureFixture, accuracy: float, advice: str) -> None:
    watch = new_watch()
    tell(watch, [accuracy] * (LONG - 1))
    assert capsys.readouterr().err == ""
    tell(watch, [accuracy], start=40)
    warned = capsys.readouterr().err
    assert re.search(f"Warning: for 50 steps, to step 50, .*stage adm .*{advice}", warned)
    tell(watch, [accuracy] * 3 * LONG)
    assert capsys.readouterr().err == ""


def test_what_does_not_last_is_not_warned_of(capsys: pytest.CaptureFixture) -> None:
    tell(new_watch(), [0.99, 0.99, 0.99, 0.99, 0.8] * 3 + [0.5, 0.5, 0.5, 0.5, 0.7] * 3)
    tell(new_watch(speaks=False), [0.99] * 20)
    tell(BalanceWatch("adm", NAME, (NAME,), num_warmup=100), [0.5] * (10 + LONG - 1))
    assert capsys.readouterr().err == ""


def test_a_resumed_training_warns_alike(capsys: pytest.CaptureFixture) -> None:
    first, second = new_watch(), new_watch()
    tell(first, [0.99] * (LONG - 1))
    second.load_state_dict(first.state_dict())
    tell(second, [0.99], start=40)
    assert "99%" in capsys.readouterr().err
    third = new_watch()
    third.load_state_dict(second.state_dict())
    tell(third, [0.99] * 2 * LONG, start=50)
    assert capsys.readouterr().err == ""


def test_measures_end_nothing_however_large(capsys: pytest.CaptureFixture) -> None:
    watch = new_watch()
    tell(watch, [0.7, 1e9, float("inf")])
