"""Stopping is invisible: N + M steps equal N, stop, M, bit for bit; and damage is never trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import materials, random_pairs
from msd.conditions.partition import Partition
from msd.errors import TrainingError, WeightsError
from msd.recipe import DMSection, RegressionSection, RoleSection
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher
from msd.training.checkpoint import Checkpoints
from msd.training.engine import Engine
from msd.training.loop import Loss, Stage, Turn, steps
from msd.training.records import RecordFile, read_records
from msd.training.watch import MAX_SKIPPED

ENGINE = Engine.on("cpu")
SETTINGS = DMSection(
    num_updates=8,
    batch_size=4,
    critic_turns=2,
    warmup_updates=1,
    regression=RegressionSection(batch_size=4, head_start=0.25, own_share=0.5),
)


def new_stage(teacher: Teacher, partition: Partition) -> DistributionMatching:
    return DistributionMatching(SETTINGS, materials(teacher, partition, part=1, pairs=random_pairs(30)))


def weights(stage: Stage) -> list[torch.Tensor]:
    """Every raw and averaged weight of every role."""
    found = []
    for role in stage.roles.values():
        handed = role.weights()
        found += [*handed.raw.values(), *(handed.average or {}).values()]
    return found


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_stopped_and_resumed_equals_uninterrupted(
    teacher: Teacher, halves: Partition, tmp_path: Path, stop_after: int
) -> None:
    whole = new_stage(teacher, halves)
    for _ in steps(whole, ENGINE, seed=3):
        pass

    checkpoints = Checkpoints(tmp_path / "checkpoints", {"task": "one"})
    first = new_stage(teacher, halves)
    for step, _ in steps(first, ENGINE, seed=3):
        if step == stop_after:
            checkpoints.save(step, first)
            break
    second = new_stage(teacher, halves)
    torch.manual_seed(999)  # nothing may hang on the global generator
    start = checkpoints.restore(second)
    for _ in steps(second, ENGINE, seed=3, start=start):
        pass

    assert start == stop_after
    for before, after in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(before, after)


def test_distilling_leaves_the_global_generator_alone(teacher: Teacher, halves: Partition) -> None:
    stage = new_stage(teacher, halves)
    before = torch.get_rng_state()
    for _ in steps(stage, ENGINE, seed=3):
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_falls_back_to_the_checkpoint_before_a_damaged_one(teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    stage = new_stage(teacher, halves)
    checkpoints = Checkpoints(tmp_path, {})
    for step in (1, 2, 3):
        checkpoints.save(step, stage)
    kept = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert kept == ["step-0000002.pt", "step-0000003.pt"]
    (tmp_path / kept[1]).write_bytes(b"damaged")
    assert checkpoints.restore(stage) == 2
    (tmp_path / kept[0]).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="all checkpoints"):
        checkpoints.restore(stage)


def test_a_checkpoint_of_another_task_is_refused(teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    stage = new_stage(teacher, halves)
    Checkpoints(tmp_path, {"task": "one"}).save(1, stage)
    with pytest.raises(WeightsError, match="belongs to another task"):
        Checkpoints(tmp_path, {"task": "two"}).restore(stage)


def test_weights_that_are_not_finite_are_never_saved(teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    stage = new_stage(teacher, halves)
    with torch.no_grad():
        next(stage.roles["critic"].module.parameters())[0] = torch.nan
    with pytest.raises(TrainingError, match="weights of the critic are not finite after step 1 of stage dm"):
        Checkpoints(tmp_path / "checkpoints", {}).save(1, stage)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_records_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "records.jsonl", every=1)
    for step in range(1, 6):
        records.add(step, {"loss": torch.tensor(float(step))})
    with records.path.open("a") as stream:
        stream.write('{"step": 6, "lo')  # a crash in the middle of a line
    records.cut(3)
    assert [record["step"] for record in read_records(records.path)] == [1, 2, 3]


def test_records_are_read_back_together_and_in_order(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "records.jsonl", every=3)
    for step in range(1, 5):
        records.add(step, {"a": torch.tensor(step / 3), "b": torch.tensor(-step)})
    assert [record["step"] for record in read_records(records.path)] == [1, 2, 3]
    records.flush()
    assert read_records(records.path)[3] == {"step": 4, "a": 1.33333, "b": -4.0} == {"step": 4, **records.last}


class _Diverging(Stage):
    """A stage whose loss is infinite from some step on."""

    name = "diverging"
    num_steps = 100
    batch_size = 1

    def __init__(self, first_bad: int = 0) -> None:
        settings = RoleSection(
            learning_rate=0.1, warmup_updates=0, final_rate=0, adam_beta1=0.9, clip_norm=1, ema_decay=None
        )
        self.roles = {"student": ENGINE.role(torch.nn.Linear(1, 1), settings, 100)}
        self._first_bad = first_bad

    def turns(self, draw):
        role = self.roles["student"]
        bad = torch.inf if draw.step >= self._first_bad else 1.0
        yield Turn(("student",), lambda: Loss(role.module.weight.sum() * bad))


def test_non_finite_gradients_change_nothing_and_end_the_run() -> None:
    stage = _Diverging(first_bad=3)
    seen = {}

    def train() -> None:
        for step, _ in steps(stage, ENGINE, 0):
            seen[step] = stage.roles["student"].module.weight.detach().clone()

    with pytest.raises(TrainingError, match=r"non-finite gradients .*diverging\.learning_rate"):
        train()
    assert not torch.equal(seen[2], seen[3])
    assert all(torch.equal(seen[3], seen[step]) for step in range(4, max(seen) + 1))


def test_the_count_of_skipped_updates_survives_a_resume(tmp_path: Path) -> None:
    """Else a diverged training that is resumed often enough ends as if all were well."""
    checkpoints, taken = Checkpoints(tmp_path, {}), []

    def three_more_steps() -> None:
        stage = _Diverging()
        for step, _ in steps(stage, ENGINE, 0, start=checkpoints.restore(stage)):
            taken.append(step)
            if step % 3 == 0:
                checkpoints.save(step, stage)
                return

    def train_by_resuming() -> None:
        while True:
            three_more_steps()

    with pytest.raises(TrainingError, match="non-finite gradients"):
        train_by_resuming()
    assert max(taken) < 2 * MAX_SKIPPED


class _EndsEarly(_Diverging):
    """A stage that is content after a number of steps which it keeps in its own small state."""

    def __init__(self) -> None:
        super().__init__(first_bad=1000)
        self.patience = 5

    def finished(self, step: int) -> bool:
        return step >= self.patience

    def state_dict(self):
        return {"patience": self.patience}

    def load_state_dict(self, state):
        self.patience = state["patience"]


def test_a_stage_may_finish_early_and_keeps_its_own_state(tmp_path: Path) -> None:
    stage, checkpoints = _EndsEarly(), Checkpoints(tmp_path, {})
    assert [step for step, _ in steps(stage, ENGINE, 0)] == [1, 2, 3, 4, 5]
    stage.patience = 7
    checkpoints.save(5, stage)
    again = _EndsEarly()
    assert [step for step, _ in steps(again, ENGINE, 0, start=checkpoints.restore(again))] == [6, 7]
