"""Pair shards: right content, resumable, and damage is named and mended exactly; batches draw from the right pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import in_memory, random_pairs
from msd.data.pairs import PairSet, PairsPlan, PairStream, make_pairs, shard_name
from msd.data.shards import open_pairs
from msd.diffusion.draw import Draw, Slice
from msd.diffusion.solvers import Solver
from msd.errors import DataError, TrainingError
from msd.teachers.folder import Teacher

PLAN = PairsPlan(num_pairs=50, shard_size=20, weights=(0.1,) * 10, seed=5, identity="one teacher")
SHAPE = (1, 8, 8)


def solve_with(teacher: Teacher):
    solver = Solver("heun", 3)
    return lambda noise, keys: solver(teacher.denoiser, noise, keys)


def test_samples_are_the_teachers_ode_solutions(teacher: Teacher, tmp_path: Path) -> None:
    report = make_pairs(solve_with(teacher), SHAPE, tmp_path / "pairs", PLAN)
    pairs = in_memory(tmp_path / "pairs")
    assert (len(pairs), len(report.made)) == (50, 3)
    with torch.inference_mode():
        again = solve_with(teacher)(pairs.noise, pairs.keys)
    torch.testing.assert_close(again, pairs.samples, atol=1e-4, rtol=1e-3)


def test_a_second_call_makes_nothing(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(solve_with(teacher), SHAPE, tmp_path / "pairs", PLAN)
    report = make_pairs(solve_with(teacher), SHAPE, tmp_path / "pairs", PLAN)
    assert report.made == []
    assert len(report.kept) == 3


class _Stopped(Exception):
    pass


def test_stopping_between_shards_loses_nothing(teacher: Teacher, tmp_path: Path) -> None:
    solve = solve_with(teacher)
    make_pairs(solve, SHAPE, tmp_path / "whole", PLAN)

    def stop_at_once(num: int, made: bool) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        make_pairs(solve, SHAPE, tmp_path / "resumed", PLAN, stop_at_once)
    with pytest.raises(DataError, match="holds 20 of 50 pairs"):
        open_pairs(tmp_path / "resumed")
    report = make_pairs(solve, SHAPE, tmp_path / "resumed", PLAN)
    assert report.kept == [shard_name(0)]
    whole, resumed = in_memory(tmp_path / "whole"), in_memory(tmp_path / "resumed")
    assert torch.equal(whole.samples, resumed.samples)
    assert torch.equal(whole.noise, resumed.noise)


def test_a_damaged_shard_is_named_and_remade_bit_for_bit(teacher: Teacher, tmp_path: Path) -> None:
    solve = solve_with(teacher)
    make_pairs(solve, SHAPE, tmp_path / "pairs", PLAN)
    before = in_memory(tmp_path / "pairs")
    shard = tmp_path / "pairs" / shard_name(1)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard-0001.safetensors is missing or damaged"):
        open_pairs(tmp_path / "pairs")
    report = make_pairs(solve, SHAPE, tmp_path / "pairs", PLAN)
    assert report.damaged == report.made == [shard_name(1)]
    assert torch.equal(in_memory(tmp_path / "pairs").samples, before.samples)


def test_another_plan_refuses_the_folder(teacher: Teacher, tmp_path: Path) -> None:
    make_pairs(solve_with(teacher), SHAPE, tmp_path / "pairs", PLAN)
    other = PairsPlan(50, 20, (0.1,) * 10, 5, identity="another teacher")
    with pytest.raises(DataError, match="another teacher or recipe"):
        make_pairs(solve_with(teacher), SHAPE, tmp_path / "pairs", other)


def test_samples_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    def broken(noise: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return torch.where(keys.reshape(-1, 1, 1, 1) == 3, torch.nan, noise)

    with pytest.raises(TrainingError, match=r"samples of shard-0000\.safetensors are not finite"):
        make_pairs(broken, SHAPE, tmp_path / "pairs", PLAN)
    assert not (tmp_path / "pairs").exists() or not list((tmp_path / "pairs").iterdir())


def stream(pairs: PairSet, own: torch.Tensor, batch_size: int, own_share: float, replacement: bool = False) -> PairStream:
    return PairStream(pairs, own, batch_size=batch_size, own_share=own_share, replacement=replacement)


@pytest.mark.parametrize(("own_share", "expected"), [(1.0, 1.0), (0.5, 0.75), (0.0, 0.5)])
def test_own_share_tilts_the_pairs_towards_the_part(own_share: float, expected: float) -> None:
    """With own_share 1 every pair is of the part; with 0.5 the part gets half plus its share of the rest."""
    pairs = random_pairs(60)
    batches = stream(pairs, pairs.keys % 2 == 1, 10, own_share)
    keys = torch.cat([batches.batch(Draw(0, "dm", step)).keys for step in range(100)])
    assert float((keys % 2 == 1).double().mean()) == pytest.approx(expected, abs=0.03)


def test_batches_do_not_repeat_unless_allowed() -> None:
    pairs = PairSet(torch.arange(6.0)[:, None], torch.arange(6), torch.arange(6.0)[:, None])
    everything = torch.ones(6, dtype=torch.bool)
    batch = stream(pairs, everything, 6, 0.0).batch(Draw(0, "dm"))
    assert sorted(batch.keys.tolist()) == list(range(6))
    assert torch.equal(batch.noise[:, 0].long(), batch.keys)
    with pytest.raises(DataError, match="a batch of 7 pairs cannot be drawn from all 6"):
        stream(pairs, everything, 7, 0.0)
    assert len(stream(pairs, everything, 7, 0.0, replacement=True).batch(Draw(0, "dm"))) == 7


def test_the_ranks_batches_make_the_global_batch() -> None:
    pairs = random_pairs(60)
    batches = stream(pairs, pairs.keys < 5, 8, 0.5)
    whole = batches.batch(Draw(1, "dm", 4))
    ranks = [batches.batch(Draw(1, "dm", 4, slice=Slice(rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat([rank.noise for rank in ranks]), whole.noise)
    assert torch.equal(torch.cat([rank.keys for rank in ranks]), whole.keys)
