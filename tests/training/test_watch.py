"""The watch: what diverges or stands still is named within twenty steps, with a next command that works; nothing else is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from builders import materials, random_pairs
from msd.conditions.partition import Partition
from msd.errors import TrainingError
from msd.recipe import DMSection, RegressionSection, RoleSection, load_recipe
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher
from msd.training.checkpoint import Checkpoints
from msd.training.engine import Engine
from msd.training.loop import Loss, Stage, Turn, steps
from msd.training.watch import advice, rate_key

ENGINE = Engine.on("cpu")
Value = Callable[[torch.Tensor, int], torch.Tensor]


class _Tiny(Stage):
    """A student and a critic of a few weights each; `value(weights, step)` is a role's loss, by default the way to 1."""

    name = "dm"
    batch_size = 1

    def __init__(
        self, *, rates: dict[str, float] | None = None, num_steps: int = 60, values: dict[str, Value] | None = None
    ):
        self.num_steps, self.values = num_steps, values or {}
        rates = {"student": 0.01, "critic": 0.01} | (rates or {})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.roles = {
                name: ENGINE.role(torch.nn.Linear(4, 4), RoleSection(learning_rate=rate, clip_norm=1e9), num_steps)
                for name, rate in rates.items()
            }

    def turns(self, draw):
        for name, role in self.roles.items():
            value = self.values.get(name, lambda weights, step: (weights - 1).square().mean())
            yield Turn((name,), lambda role=role, value=value: Loss(value(role.module.weight, draw.step)))


def verdict(stage: Stage, start: int = 0) -> tuple[int, str]:
    """The last finished step, and what ended the training ("" for a training that went through)."""
    last = start
    try:
        for step, _ in steps(stage, ENGINE, 0, start=start):
            last = step
    except TrainingError as error:
        return last, str(error)
    return last, ""


def test_a_healthy_training_is_left_alone() -> None:
    assert verdict(_Tiny()) == (60, "")


@pytest.mark.parametrize(
    ("stage", "by", "words"),
    [
        ({"rates": {"student": 1e30}}, 10, "non-finite gradients of the student of late .*dm.learning_rate=0.0008"),
        ({"rates": {"critic": 1e30}}, 10, "non-finite gradients of the critic .*dm.critic_learning_rate=0.0015"),
        ({"rates": {"critic": 50.0}}, 10, "diverges: the loss of the critic .*rate of the critic.*dm.critic_learning_rate"),
        ({"rates": {"critic": 1e-12}}, 20, "20 updates of the critic changed none .*1e-12 is too low.*dm.critic_learning"),
        ({"values": {"critic": lambda weights, _: weights.sum() * 0}}, 20, "the critic changed none.*gradients are zero"),
        ({"values": {"student": lambda weights, _: weights.sum() * torch.nan}}, 10, "of the student .*number in its data"),
        (
            {"values": {"student": lambda weights, step: weights.sum() * (torch.nan if step % 2 else 1)}},
            30,
            "non-finite gradients of the student .*since step",
        ),
    ],
)
def test_what_goes_wrong_is_named_early(stage: dict, by: int, words: str) -> None:
    last, message = verdict(_Tiny(**stage))
    assert last < by
    assert re.search(rf"stage dm by step {last + 1} .*{words}", message)
    assert "\n" not in message


def test_ten_times_too_fast_is_named_where_it_diverges() -> None:
    """Loss (w - 1)^4 with a rate at which each update goes further: the same rate divided by ten goes through."""
    steep: dict[str, Value] = {"student": lambda weights, _: (weights - 1).pow(4).sum()}
    assert verdict(_Tiny(rates={"student": 0.6}, values=steep))[1] == ""
    assert "dm.learning_rate" in verdict(_Tiny(rates={"student": 6.0}, values=steep))[1]


def test_the_first_to_break_is_named_not_its_victim() -> None:
    values: dict[str, Value] = {
        "student": lambda weights, step: weights.sum() * (torch.inf if step >= 4 else 1),
        "critic": lambda weights, step: weights.sum() * (torch.inf if step >= 2 else 1),
    }
    assert "of the critic" in verdict(_Tiny(values=values))[1]


def test_weights_that_are_not_finite_are_named() -> None:
    stage = _Tiny()
    with torch.no_grad():
        stage.roles["critic"].module.weight[0, 0] = torch.nan
    assert re.search("weights of the critic that are not finite .*critic_learning_rate", verdict(stage)[1])


def test_one_bad_number_ends_nothing() -> None:
    """An update that is skipped, or one wild loss, is no divergence."""
    wild: dict[str, Value] = {
        "student": lambda weights, step: weights.sum() * (torch.nan if step in (3, 17) else 1),
        "critic": lambda weights, step: (weights - 1).square().mean() * (1e6 if step in (5, 25, 26) else 1),
    }
    assert verdict(_Tiny(values=wild)) == (60, "")


def test_a_loss_that_starts_at_nothing_has_room() -> None:
    """Matching starts at 0, critic and teacher being the same, and rises by orders of magnitude."""
    rising: dict[str, Value] = {"student": lambda weights, step: weights.sum() * 0.01 + min(step, 20) * 0.1}
    assert verdict(_Tiny(values=rising)) == (60, "")


def test_the_end_of_a_cosine_may_stand_still() -> None:
    stage = _Tiny(num_steps=4000)
    for role in stage.roles.values():
        role.num_updates = 3900
    stage.watch.begin(stage.roles)
    assert verdict(stage, start=3900)[1] == ""


@pytest.mark.parametrize(
    "wrong", [{"rates": {"critic": 1e-12}}, {"rates": {"critic": 3.0}}, {"rates": {"student": 1e30}}, {}]
)
@pytest.mark.parametrize("every", [1, 7, 13])
def test_a_resumed_training_is_judged_alike(tmp_path: Path, wrong: dict, every: int) -> None:
    """Stopped at any step, from what the checkpoint holds, the sentence is the same to the last figure."""
    whole = verdict(_Tiny(**wrong, num_steps=40))
    checkpoints, done, message = Checkpoints(tmp_path, {}), 0, ""
    while done < 40 and not message:
        stage = _Tiny(**wrong, num_steps=40)
        start = done = checkpoints.restore(stage)
        try:
            for step, _ in steps(stage, ENGINE, 0, start=start):
                done = step
                if step == start + every:
                    checkpoints.save(step, stage)
                    break
        except TrainingError as error:
            message = str(error)
    assert (done, message) == whole


@pytest.mark.parametrize(
    ("stage", "role", "key"),
    [
        ("dm", "student", "dm.learning_rate"),
        ("dm", "critic", "dm.critic_learning_rate"),
        ("pretrain", "teacher", "pretrain.learning_rate"),
        ("mine", "student", "mine.learning_rate"),
    ],
)
def test_rates_are_named_after_the_stage_and_role(stage: str, role: str, key: str) -> None:
    assert rate_key(stage, role) == key


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize(("stage", "role"), [("dm", "student"), ("dm", "critic"), ("pretrain", "teacher")])
@pytest.mark.parametrize("rate", [1e-12, 1e-3, 1e30])
def test_the_advice_is_a_command_that_works(stage: str, role: str, rate: float, faster: bool) -> None:
    words = advice(stage, role, RoleSection(learning_rate=rate), faster=faster)
    override = words.split("--set ")[1].split()[0]
    found = getattr(load_recipe("digits", [override]), stage)
    value = found.critic_role.learning_rate if role == "critic" else found.learning_rate
    assert value == pytest.approx(float(override.split("=")[1]))
    assert (value > rate) if faster and rate < 1 else True
    assert (value < rate) if not faster else True


def test_a_frozen_critic_is_named_and_a_head_start_is_no_standing_still(teacher: Teacher, halves: Partition) -> None:
    """Ten steps of regression, where the critic has no turns, then twenty updates that move nothing."""
    settings = DMSection(
        num_updates=40,
        batch_size=2,
        warmup_updates=0,
        critic_learning_rate=1e-12,
        regression=RegressionSection(batch_size=2, head_start=0.25),
    )
    stage = DistributionMatching(settings, materials(teacher, halves, pairs=random_pairs(), sigma_init=2.5))
    last, message = verdict(stage)
    assert last == 29
    assert "20 updates of the critic changed none of its weights" in message
