"""The ADM stage: whose turn it is, what each turn moves, whose images it sees, and that every option does what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from builders import UNIFORM, materials, random_pairs
from msd.conditions.partition import Partition
from msd.data.images import ImageSet, load_digits
from msd.diffusion.draw import Draw
from msd.diffusion.noise import KarrasLaw
from msd.diffusion.solvers import one_step
from msd.errors import DataError, RecipeError
from msd.networks.taps import Tap
from msd.objectives.adversarial import generator_loss
from msd.recipe import ADMSection, DMSection, PairedSection, RegressionSection
from msd.stages.adm import AdversarialMatching
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher
from msd.training.bundle import Bundle
from msd.training.checkpoint import Checkpoints
from msd.training.engine import Engine
from msd.training.loop import Stage, Turn, steps

ENGINE, SEED = Engine.on("cpu"), 3
IMAGES = load_digits()
SMALL: dict[str, Any] = {
    "num_updates": 2,
    "batch_size": 4,
    "critic_turns": 1,
    "warmup_updates": 0,
    "discriminator_warmup": 0,
    "regression": PairedSection(weight=0),
}


def settings(**changes: Any) -> ADMSection:
    return ADMSection(**SMALL | changes)


def stage_of(teacher: Teacher, partition: Partition, *, part: int = 1, **changes: Any) -> AdversarialMatching:
    given = {"pairs": None, "bundle": None, "images": IMAGES} | {
        name: changes.pop(name) for name in ("pairs", "bundle", "images") if name in changes
    }
    return AdversarialMatching(settings(**changes), materials(teacher, partition, part=part, sigma_init=2.5, **given))


def run(stage: Stage, start: int = 0) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in record.items()} for _, record in steps(stage, ENGINE, SEED, start=start)]


def weights(stage: Stage) -> dict[str, list[Tensor]]:
    """Raw weights and averages of each role."""
    found = {}
    for name, role in stage.roles.items():
        handed = role.weights()
        found[name] = [value.clone() for value in (*handed.raw.values(), *(handed.average or {}).values())]
    return found


def changed(before: dict[str, list[Tensor]], after: dict[str, list[Tensor]]) -> set[str]:
    return {name for name in before if not all(map(torch.equal, before[name], after[name]))}


@pytest.mark.parametrize("ratio", [1, 2, 5])
def test_student_first_then_critic_and_discriminator_after_a_warm_up(
    teacher: Teacher, halves: Partition, ratio: int
) -> None:
    stage = stage_of(teacher, halves, critic_turns=ratio, discriminator_warmup=3)
    order = [[turn.roles for turn in stage.turns(Draw(0, "adm", step))] for step in range(stage.num_steps)]
    assert order == [[("discriminator",)]] * 3 + [[("student",), *[("critic", "discriminator")] * ratio]] * 2
    records = run(stage)
    assert {name: role.num_updates for name, role in stage.roles.items()} == {
        "student": 2,
        "critic": 2 * ratio,
        "discriminator": 3 + 2 * ratio,
    }
    assert not any(name.startswith(("student", "critic")) for name in records[0])
    assert records[3].keys() >= {
        *("student/dm", "student/adversarial", "student/gradient_ratio", "critic/denoising", "critic/gradient_norm"),
        *(
            "discriminator/adversarial",
            "discriminator/accuracy_real",
            "discriminator/accuracy_fake",
            "discriminator/accuracy",
        ),
    }


class _Only(AdversarialMatching):
    """The stage with the turns of one role alone."""

    wanted = "student"

    def turns(self, draw: Draw) -> Iterator[Turn]:
        return (turn for turn in super().turns(draw) if self.wanted in turn.roles)

    def derived(self, record):
        return {}


@pytest.mark.parametrize(("wanted", "moved"), [("student", {"student"}), ("critic", {"critic", "discriminator"})])
@pytest.mark.parametrize("features", [{}, {"features": "teacher", "trains_critic": False}])
def test_a_turn_leaves_nothing_on_the_others(
    teacher: Teacher, halves: Partition, wanted: str, moved: set[str], features: dict
) -> None:
    stage = _Only(settings(**features), materials(teacher, halves, sigma_init=2.5, images=IMAGES))
    stage.wanted = wanted
    before, frozen = weights(stage), [value.clone() for value in teacher.denoiser.state_dict().values()]
    for _ in steps(stage, ENGINE, SEED):
        idle = [value for name, role in stage.roles.items() if name not in moved for value in role.module.parameters()]
        assert all(parameter.grad is None for parameter in idle)
    assert changed(before, weights(stage)) == moved
    assert all(map(torch.equal, frozen, teacher.denoiser.state_dict().values()))
    assert all(parameter.grad is None for parameter in teacher.denoiser.parameters())


def test_the_student_s_gradient_is_that_of_autograd_through_everything(teacher: Teacher, halves: Partition) -> None:
    """By hand: the same draws, one graph from the student's weights through its samples, the critic and the head."""
    stage = stage_of(teacher, halves, part=0, weight=0, adversarial_weight=0.7)
    student, critic, head = (stage.roles[name].module for name in ("student", "critic", "discriminator"))
    draw = Draw(SEED, "adm", 0)
    keys = halves.sample(0, 4, draw)
    samples = one_step(student.requires_grad_(True), draw.normal(4, 1, 8, 8), keys, 2.5)
    KarrasLaw().sample(4, draw), draw.normal(4, 1, 8, 8)  # the DM gradient's
    sigma = KarrasLaw(0.02, 2.0).sample(4, draw)
    noised = samples + sigma.reshape(-1, 1, 1, 1) * draw.normal(4, 1, 8, 8)
    logits = head(Tap(critic, "bottleneck")(critic, noised, sigma, keys)[1], keys)
    loss = 0.7 * generator_loss(logits)
    expected = torch.autograd.grad(loss, [samples, *student.parameters()])

    student.requires_grad_(False)
    stage.roles["student"].activate(True)
    found = next(iter(stage.turns(Draw(SEED, "adm", 0)))).loss()
    assert found.value.item() == pytest.approx(loss.item(), rel=1e-5)
    found.value.backward()
    for parameter, gradient in zip(student.parameters(), expected[1:], strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
    pull = expected[0].flatten(1).norm(dim=1).mean() * 4
    torch.testing.assert_close(found.parts["student/adversarial_gradient"], pull)


def critic_gradients(stage: AdversarialMatching) -> dict[str, Tensor]:
    """Of the first step's critic turn, from where student and critic start."""
    _, turn = stage.turns(Draw(SEED, "adm", 0))
    for name, role in stage.roles.items():
        role.activate(name in turn.roles)
    turn.loss().value.backward()
    return {name: value.grad.clone() for name, value in stage.roles["critic"].module.named_parameters()}


def test_the_gan_trains_the_critic_up_to_the_tap_or_not_at_all(teacher: Teacher, halves: Partition) -> None:
    both, alone, silent = (
        critic_gradients(stage_of(teacher, halves, **changes))
        for changes in ({}, {"trains_critic": False}, {"discriminator_weight": 0.0})
    )
    differs = {name.split(".")[2] for name in both if not torch.equal(both[name], alone[name])}
    assert {"conv_in", "down_blocks", "mid_block"} <= differs
    assert not differs & {"up_blocks", "conv_out", "conv_norm_out"}
    for name in alone:
        torch.testing.assert_close(alone[name], silent[name], rtol=1e-4, atol=1e-6)


def test_the_discriminator_learns_what_can_be_told_apart(teacher: Teacher, halves: Partition) -> None:
    """An untrained student's noise against digits."""
    easy = {"batch_size": 32, "discriminator_sigma_high": 0.5}
    records = run(stage_of(teacher, halves, **easy, discriminator_warmup=60, num_updates=1))
    late = records[45:60]
    assert sum(record["discriminator/accuracy"] for record in late) / len(late) > 0.9
    assert records[59]["discriminator/adversarial"] < 0.7 < records[0]["discriminator/adversarial"]


class _Spy(torch.nn.Module):
    """A network's stand-in that notes which conditions it is asked for."""

    def __init__(self, inner: torch.nn.Module, seen: set[int]):
        super().__init__()
        self.inner, self.seen = inner, seen

    def forward(self, x, noise_level, condition):
        self.seen.update(condition.tolist())
        return self.inner(x, noise_level, condition)


def test_only_the_part_s_keys_and_images_are_seen(teacher: Teacher, halves: Partition) -> None:
    """Images of other classes would be an error here: there are none."""
    own = torch.isin(IMAGES.labels, torch.tensor(halves.parts[1]))
    images = ImageSet("odd", IMAGES.pixels[own], IMAGES.labels[own], 10, licence="none")
    stage, seen = stage_of(teacher, halves, images=images, num_updates=8), set()
    critic = stage.roles["critic"].module
    critic.network = _Spy(critic.network, seen)
    run(stage)
    assert seen == set(halves.parts[1])


OPTIONS = [
    {"critic_weighting": "unweighted"},
    {"features": "teacher", "trains_critic": False},
    {"trains_critic": False},
    {"tap": "down.0"},
    {"tap": "up.1", "critic_turns": 2},
    {"head": "strided", "tap": "down.0"},
    {"adversarial_weight": 0.1},
    {"weight": 0.0},
    {"discriminator_weight": 0.01},
    {"discriminator_sigma_low": 1.0},
    {"discriminator_sigma_high": 80.0},
    {"discriminator_learning_rate": 1e-4},
    {"critic_learning_rate": 1e-3},
    {"learning_rate": 1e-3},
    {"discriminator_warmup": 1},
    {"r1_weight": 0.0},
    {"r1_sigma": 0.5},
    {"regression": PairedSection(weight=1, batch_size=4), "pairs": random_pairs()},
    {"trained_layers": "no-convolutions"},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=lambda changes: ",".join(f"{key}={changes[key]}"[:40] for key in changes))
def test_each_option_runs_and_changes_the_training(teacher: Teacher, halves: Partition, changes: dict) -> None:
    usual, other = stage_of(teacher, halves), stage_of(teacher, halves, **changes)
    run(usual)
    records = run(other)
    # Without DM the ratio has nothing to be a ratio to.
    known = [value for name, value in records[-1].items() if name != "student/gradient_ratio" or "weight" not in changes]
    assert all(map(math.isfinite, known))
    assert changed({"student": weights(usual)["student"]}, {"student": weights(other)["student"]})
    assert ("student/regression" in records[-1] and records[-1]["student/regression"] > 0) == ("regression" in changes)
    assert ("discriminator/r1" in records[-1]) == (changes.get("r1_weight") != 0)


def test_convolutions_stay_as_they_are_where_they_are_frozen(teacher: Teacher, halves: Partition) -> None:
    stage = stage_of(teacher, halves, trained_layers="no-convolutions")
    start = {name: value.clone() for name, value in stage.roles["student"].module.named_parameters()}
    run(stage)
    moved = {name for name, value in stage.roles["student"].module.named_parameters() if not torch.equal(value, start[name])}
    assert moved
    assert not any("conv1" in name or "conv_in" in name or "conv_out" in name for name in moved)
    assert stage.roles["critic"].parameters  # the critic's are not frozen
    assert len(stage.roles["critic"].parameters) > len(stage.roles["student"].parameters)


def dm_bundle(teacher: Teacher, halves: Partition, path: Path) -> Bundle:
    """What a short DM stage hands on, through its file."""
    dm = DMSection(num_updates=3, batch_size=4, warmup_updates=0, regression=RegressionSection(weight=0))
    first = DistributionMatching(dm, materials(teacher, halves, part=1, sigma_init=2.5))
    run(first)
    Bundle({name: role.weights() for name, role in first.roles.items()}).save(path)
    return Bundle.load(path)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_stopped_and_resumed_equals_uninterrupted_after_dm(
    teacher: Teacher, halves: Partition, tmp_path: Path, stop_after: int
) -> None:
    """From DM's raw student and critic, stopped in the warm-up, after it, and later: the same bits."""
    bundle = dm_bundle(teacher, halves, tmp_path / "bundle.safetensors")
    changes = {
        "num_updates": 4,
        "critic_turns": 2,
        "discriminator_warmup": 2,
        "bundle": bundle,
        "regression": PairedSection(batch_size=4),
        "pairs": random_pairs(),
    }
    whole, first, second = (stage_of(teacher, halves, **changes) for _ in range(3))
    for role in ("student", "critic"):
        handed = bundle.roles[role].raw
        assert all(torch.equal(value, handed[name]) for name, value in whole.roles[role].module.state_dict().items())
    run(whole)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    for step, _ in steps(first, ENGINE, SEED):
        if step == stop_after:
            checkpoints.save(step, first)
            break
    torch.manual_seed(999)  # nothing may hang on the global generator
    run(second, start=checkpoints.restore(second))
    assert changed(weights(whole), weights(second)) == set()


@pytest.mark.parametrize("num", [2, 4])
def test_in_micro_batches_the_whole_batch_is_descended(teacher: Teacher, halves: Partition, num: int) -> None:
    """The same rows, two turns of critic and discriminator, the first on the student turn's own samples."""
    changes: dict[str, Any] = {"critic_turns": 2, "discriminator_warmup": 1, "pairs": random_pairs(), "num_updates": 1}
    changes["regression"] = PairedSection(weight=1, batch_size=8, own_share=0.5)
    stages = [stage_of(teacher, halves, **changes) for _ in range(2)]
    engines = (ENGINE, replace(ENGINE, num_micro_batches=num))
    found = [[record for _, record in steps(one, engine, SEED)] for one, engine in zip(stages, engines, strict=True)]
    for whole, parted in zip(*found, strict=True):
        torch.testing.assert_close(parted, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*map(weights, stages), rtol=1e-3, atol=1e-4)


def test_the_head_is_handed_on_too(teacher: Teacher, halves: Partition) -> None:
    first = stage_of(teacher, halves)
    run(first)
    again = stage_of(teacher, halves, bundle=Bundle({name: role.weights() for name, role in first.roles.items()}))
    handed = first.roles["discriminator"].module.state_dict()
    assert all(map(torch.equal, handed.values(), again.roles["discriminator"].module.state_dict().values()))


def test_what_is_missing_or_misfits_is_said(teacher: Teacher, halves: Partition) -> None:
    with pytest.raises(DataError, match="needs real images; set data"):
        stage_of(teacher, halves, images=None)
    with pytest.raises(DataError, match=r"set adm\.regression\.weight=0"):
        stage_of(teacher, halves, regression=PairedSection())
    with pytest.raises(DataError, match=r"cannot be drawn .*adm\.regression\.batch_size"):
        stage_of(teacher, halves, regression=PairedSection(batch_size=90), pairs=random_pairs())
    with pytest.raises(RecipeError, match="no tap 'mid'"):
        stage_of(teacher, halves, tap="mid")
    even = IMAGES.labels % 2 == 0
    with pytest.raises(DataError, match="part 1 has no real images of 1, 3, 5, 7, 9"):
        stage_of(teacher, halves, images=ImageSet("even", IMAGES.pixels[even], IMAGES.labels[even], 10, licence="none"))
    wide = ImageSet("wide", torch.zeros(10, 1, 9, 9), torch.arange(10), 10, licence="none")
    with pytest.raises(DataError, match=r"shape \(1, 9, 9\), the teacher's \(1, 8, 8\)"):
        stage_of(teacher, Partition.whole(UNIFORM), part=0, images=wide)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": "teacher"}, "trains_critic=false"),
        ({"discriminator_sigma_low": 3.0}, "discriminator_sigma_low 3.0 must be below discriminator_sigma_high 2.0"),
        ({"sigma_low": 30.0}, "^sigma_low 30.0 must be below sigma_high 20.0"),
        ({"weight": 0, "adversarial_weight": 0}, "nothing would be learned"),
        ({"features": "student"}, "features"),
        ({"regression": {"head_start": 0.5}}, "head_start"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        settings(**changes)
