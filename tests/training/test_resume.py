"""Stopping is invisible: N + M steps equal N, stop, M, bit for bit; and damage is never trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msd.conditions.partition import Partition
from msd.data.pairs import PairSet
from msd.errors import TrainingError, WeightsError
from msd.recipe import DMSection, RegressionSection
from msd.stages.dm import DistributionMatching
from msd.teachers.folder import Teacher
from msd.training.checkpoint import Checkpoints
from msd.training.engine import Engine
from msd.training.loop import Loss, Turn, run_stage
from msd.training.records import RecordFile, read_records
from msd.training.roles import Role, RoleSpec

SETTINGS = DMSection(
    num_updates=8,
    batch_size=4,
    critic_turns=2,
    warmup_updates=1,
    regression=RegressionSection(batch_size=4, head_start=0.25, own_share=0.5),
)


def new_stage(teacher: Teacher, partition: Partition) -> DistributionMatching:
    generator = torch.Generator().manual_seed(9)
    pairs = PairSet(
        torch.randn(30, 1, 8, 8, generator=generator),
        torch.arange(30) % 10,
        torch.randn(30, 1, 8, 8, generator=generator),
    )
    return DistributionMatching(SETTINGS, teacher.denoiser, partition, 1, pairs, Engine.on("cpu"))


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_stopped_and_resumed_equals_uninterrupted(
    teacher: Teacher, halves: Partition, tmp_path: Path, stop_after: int
) -> None:
    engine = Engine.on("cpu")
    whole = new_stage(teacher, halves)
    run_stage(whole, engine.generator(3))

    checkpoints = Checkpoints(tmp_path / "checkpoints", {"partition": halves.hash})
    first, generator = new_stage(teacher, halves), engine.generator(3)

    def stop(step: int, record: dict[str, float]) -> None:
        if step == stop_after:
            checkpoints.save(step, first.roles, generator)
            raise _Stopped

    with pytest.raises(_Stopped):
        run_stage(first, generator, callbacks=[stop])
    second, generator = new_stage(teacher, halves), engine.generator(999)
    start = checkpoints.restore(second.roles, generator)
    run_stage(second, generator, start=start)

    assert start == stop_after
    for name in ("student", "critic"):
        for before, after in zip(
            whole.roles[name].result().parameters(), second.roles[name].result().parameters(), strict=True
        ):
            assert torch.equal(before, after)


def test_falls_back_to_the_checkpoint_before_a_damaged_one(teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    stage, generator = new_stage(teacher, halves), torch.Generator()
    checkpoints = Checkpoints(tmp_path, {})
    for step in (1, 2, 3):
        checkpoints.save(step, stage.roles, generator)
    kept = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert kept == ["step-0000002.pt", "step-0000003.pt"]
    (tmp_path / kept[1]).write_bytes(b"damaged")
    assert checkpoints.restore(stage.roles, generator) == 2
    (tmp_path / kept[0]).write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="all checkpoints"):
        checkpoints.restore(stage.roles, generator)


def test_a_checkpoint_of_another_partition_is_refused(teacher: Teacher, halves: Partition, tmp_path: Path) -> None:
    stage = new_stage(teacher, halves)
    Checkpoints(tmp_path, {"partition": "one"}).save(1, stage.roles, torch.Generator())
    with pytest.raises(WeightsError, match="belongs to another partition"):
        Checkpoints(tmp_path, {"partition": "two"}).restore(stage.roles, torch.Generator())


def test_records_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "records.jsonl", every=1)
    for step in range(1, 6):
        records(step, {"loss": float(step)})
    with records.path.open("a") as stream:
        stream.write('{"step": 6, "lo')  # a crash in the middle of a line
    records.cut(3)
    assert [record["step"] for record in read_records(records.path)] == [1, 2, 3]


class _Diverging:
    """A stage whose loss is always infinite."""

    name = "diverging"
    num_steps = 100

    def __init__(self) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.roles = {"student": Role(self.module, RoleSpec(learning_rate=1.0, num_updates=100))}

    def turns(self, generator: torch.Generator):
        yield Turn("student", lambda: Loss(self.module.weight.sum() * torch.inf))


def test_non_finite_gradients_change_nothing_and_end_the_run() -> None:
    stage = _Diverging()
    before = stage.module.weight.clone()
    with pytest.raises(TrainingError, match="non-finite gradients"):
        run_stage(stage, torch.Generator())
    assert torch.equal(stage.module.weight, before)


def test_learning_rate_warms_up_then_falls_along_a_cosine() -> None:
    role = Role(torch.nn.Linear(1, 1), RoleSpec(learning_rate=1.0, num_updates=100, warmup_updates=3, final_rate=0.1))
    rates = []
    for role.num_updates in (0, 1, 3, 50, 100):
        rates.append(role.rate())
    assert rates[0] == pytest.approx(0.25, rel=1e-3)
    assert rates[1] == pytest.approx(0.5, rel=1e-2)
    assert rates[2] == pytest.approx(1.0, rel=1e-2)
    assert rates[3] == pytest.approx(0.55)
    assert rates[4] == pytest.approx(0.1)
