"""Reading ahead: another thread, one step ahead, and the very training that a single thread would be.

There is no GPU here: copies go from the CPU to the CPU, in the threads and the order that pinned ones would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import UNIFORM, materials, random_pairs
from msd.conditions.partition import Partition
from msd.data.images import load_digits
from msd.data.pairs import Pairs, PairsPlan, make_pairs, shard_name
from msd.data.shards import open_pairs
from msd.diffusion.draw import Draw
from msd.errors import DataError
from msd.recipe import ADMSection, DMSection, NetworkSection, PairedSection, PretrainSection, RegressionSection, TSMSection
from msd.stages.materials import Materials
from msd.stages.table import STAGES
from msd.teachers.folder import Teacher
from msd.training.ahead import Copies, each_tensor
from msd.training.engine import Engine
from msd.training.loop import Stage, steps

SETTINGS: dict[str, Any] = {
    "pretrain": PretrainSection(num_updates=4, batch_size=8),
    "tsm": TSMSection(num_updates=4, batch_size=8),
    "dm": DMSection(
        num_updates=4,
        batch_size=8,
        critic_turns=2,
        regression=RegressionSection(batch_size=8, head_start=0.5, own_share=0.5),
    ),
    "adm": ADMSection(
        num_updates=2, batch_size=8, critic_turns=2, discriminator_warmup=2, regression=PairedSection(batch_size=8, weight=1)
    ),
}
IMAGES = load_digits()


@dataclass
class _Slow:
    """Copies that are bytes of their own, not there before they are received, and a log of who did what."""

    log: list[tuple[str, str]] = field(default_factory=list)

    def send(self, read: Any) -> Any:
        self.log.append(("sent", threading.current_thread().name))
        return each_tensor(read, torch.clone)

    def receive(self, sent: Any) -> Any:
        self.log.append(("received", threading.current_thread().name))
        return sent


@dataclass(frozen=True)
class _Ahead(Engine):
    through: _Slow = field(default_factory=_Slow)

    def copies(self) -> Copies:
        return self.through


AHEAD = _Ahead(torch.device("cpu"))


def stage_of(name: str, engine: Engine, teacher: Teacher, halves: Partition, pairs: Pairs | None = None) -> Stage:
    if name == "pretrain":
        network = NetworkSection(block_out_channels=(8, 16), norm_num_groups=4, dropout=0.2)
        return STAGES[name](SETTINGS[name], Materials(engine, seed=0, images=IMAGES, network=network))
    given = materials(teacher, halves, part=1, pairs=pairs or random_pairs(), sigma_init=2.5, images=IMAGES, engine=engine)
    assert given.start is not None
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in given.start.parameters():  # else TSM has nothing to learn
            parameter.data.add_(0.02 * torch.randn(parameter.shape))
    return STAGES[name](SETTINGS[name], given)


def trained(stage: Stage, engine: Engine, start: int = 0, stop: int | None = None) -> list[dict[str, float]]:
    records, updates = [], steps(stage, engine, 3, start=start)
    for step, record in updates:
        records.append({key: float(value) for key, value in record.items()})
        if step == stop:
            updates.close()
    return records


def weights(stage: Stage) -> list[torch.Tensor]:
    return [value for role in stage.roles.values() for value in role.module.state_dict().values()]


@pytest.mark.parametrize("num_micro_batches", [1, 2])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_is_read_ahead_is_the_same_to_the_bit(
    name: str, num_micro_batches: int, teacher: Teacher, halves: Partition
) -> None:
    """Also one that is stopped and goes on: what was fetched for the step that did not come is fetched again."""
    plain = replace(Engine.on("cpu"), num_micro_batches=num_micro_batches)
    ahead = replace(AHEAD, num_micro_batches=num_micro_batches)
    inline, threaded, stopped = (stage_of(name, engine, teacher, halves) for engine in (plain, ahead, ahead))
    expected = trained(inline, plain)
    assert trained(threaded, ahead) == expected
    assert trained(stopped, ahead, stop=1) + trained(stopped, ahead, start=1) == expected
    for other in (threaded, stopped):
        assert all(map(torch.equal, weights(inline), weights(other)))


def test_one_step_is_fetched_ahead_in_a_thread_that_ends_with_the_stage(teacher: Teacher, halves: Partition) -> None:
    engine = replace(AHEAD, through=_Slow())
    updates, log = steps(stage_of("dm", engine, teacher, halves), engine, 3), engine.through.log
    for step in range(1, 5):
        next(updates)
        _wait(lambda step=step: [what for what, _ in log].count("sent") == min(step + 1, 4))
        assert [what for what, _ in log].count("received") == step
    assert {thread for what, thread in log if what == "received"} == {threading.current_thread().name}
    (reader,) = {thread for what, thread in log if what == "sent"}
    assert reader != threading.current_thread().name
    assert next(updates, None) is None
    assert reader not in {thread.name for thread in threading.enumerate()}


def _wait(happened: Callable[[], bool]) -> None:
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def test_what_goes_wrong_in_reading_ahead_is_the_training_s_error(
    tmp_path: Path, teacher: Teacher, halves: Partition
) -> None:
    make_pairs(lambda noise, keys: -noise, (1, 8, 8), tmp_path, PairsPlan(60, 60, UNIFORM, 0, "x"))
    updates = steps(stage_of("dm", AHEAD, teacher, halves, open_pairs(tmp_path)), AHEAD, 3)
    next(updates)
    (tmp_path / shard_name(0)).unlink()
    with pytest.raises(DataError, match=r"shard-0000\.safetensors vanished while it was in use .*; run `msd pairs` again"):
        list(updates)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading-ahead")]


def test_on_the_cpu_nothing_is_read_in_another_thread(
    teacher: Teacher, halves: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    assert Engine.on("cpu").copies() is None
    assert trained(stage_of("dm", Engine.on("cpu"), teacher, halves), Engine.on("cpu"), stop=1)


def test_a_draw_goes_on_where_it_was_on_another_device() -> None:
    whole, part = Draw(0, "x", 3), Draw(0, "x", 3)
    first = part.on(torch.device("meta")).normal(2, 3)
    assert (first.device.type, first.shape) == ("meta", (2, 3))
    whole.normal(2, 3)
    assert torch.equal(part.uniform(5), whole.uniform(5))
