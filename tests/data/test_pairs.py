"""Pair shards: right content, resumable, and damage is named and mended exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msd.data.pairs import PairSet, PairsPlan, load_pairs, make_pairs, shard_name
from msd.diffusion.solvers import Solver
from msd.errors import DataError
from msd.teachers.folder import Teacher

PLAN = PairsPlan(num_pairs=50, shard_size=20, solver=Solver("heun", 3), prior=(0.1,) * 10, seed=5)


def test_samples_are_the_teachers_ode_solutions(teacher: Teacher, tmp_path: Path) -> None:
    report = make_pairs(teacher, tmp_path / "pairs", PLAN)
    pairs = load_pairs(tmp_path / "pairs")
    assert (len(pairs), len(report.made)) == (50, 3)
    with torch.inference_mode():
        again = PLAN.solver(teacher.denoiser, pairs.noise, pairs.conditions)
    torch.testing.assert_close(again, pairs.samples, atol=1e-4, rtol=1e-3)


def test_a_second_call_makes_nothing(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(teacher, tmp_path / "pairs", PLAN)
    report = make_pairs(teacher, tmp_path / "pairs", PLAN)
    assert report.made == []
    assert len(report.kept) == 3


class _Stopped(Exception):
    pass


def test_stopping_between_shards_loses_nothing(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(teacher, tmp_path / "whole", PLAN)

    def stop_at_once(num: int) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        make_pairs(teacher, tmp_path / "resumed", PLAN, stop_at_once)
    with pytest.raises(DataError, match="holds 20 of 50 pairs"):
        load_pairs(tmp_path / "resumed")
    report = make_pairs(teacher, tmp_path / "resumed", PLAN)
    assert report.kept == [shard_name(0)]
    whole, resumed = load_pairs(tmp_path / "whole"), load_pairs(tmp_path / "resumed")
    assert torch.equal(whole.samples, resumed.samples)
    assert torch.equal(whole.noise, resumed.noise)


def test_a_damaged_shard_is_named_and_remade_bit_for_bit(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(teacher, tmp_path / "pairs", PLAN)
    before = load_pairs(tmp_path / "pairs")
    shard = tmp_path / "pairs" / shard_name(1)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-0001.safetensors is missing or damaged"):
        load_pairs(tmp_path / "pairs")
    report = make_pairs(teacher, tmp_path / "pairs", PLAN)
    assert report.damaged == report.made == [shard_name(1)]
    assert torch.equal(load_pairs(tmp_path / "pairs").samples, before.samples)


def test_another_plan_refuses_the_folder(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(teacher, tmp_path / "pairs", PLAN)
    other = PairsPlan(50, 20, Solver("heun", 4), (0.1,) * 10, 5)
    with pytest.raises(DataError, match="another teacher or recipe"):
        make_pairs(teacher, tmp_path / "pairs", other)


def test_batches_do_not_repeat_unless_allowed() -> None:
    pairs = PairSet(torch.arange(6.0)[:, None], torch.arange(6), torch.arange(6.0)[:, None])
    generator = torch.Generator().manual_seed(0)
    batch = pairs.batch(6, generator)
    assert sorted(batch.conditions.tolist()) == list(range(6))
    assert torch.equal(batch.noise[:, 0].long(), batch.conditions)
    with pytest.raises(DataError, match="a batch of 7 pairs cannot be drawn from 6"):
        pairs.batch(7, generator)
    assert len(pairs.batch(7, generator, with_replacement=True)) == 7
