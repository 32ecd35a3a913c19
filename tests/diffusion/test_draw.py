"""Draws: a function of (seed, place, step, attempt); ranks' slices make the global batch; step n needs no step n-1."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.diffusion.draw import Draw, Slice, derived_seed, image_noise, noise_by_step

WEIGHTS = torch.tensor([0.1, 0.0, 0.4, 0.5])


def everything(draw: Draw, num: int) -> list[torch.Tensor]:
    """One call of each kind, in a fixed order."""
    pairs = draw.mine(draw.indices(50, num, replacement=False))
    return [draw.normal(num, 1, 2), draw.uniform(num), draw.choice(WEIGHTS, num), pairs]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 10**6))
def test_the_ranks_slices_make_the_global_batch(num_ranks: int, rows_each: int, seed: int) -> None:
    num = num_ranks * rows_each
    whole = everything(Draw(seed, "dm", 3), num)
    ranks = [everything(Draw(seed, "dm", 3, slice=Slice(rank, num_ranks)), num) for rank in range(num_ranks)]
    for kind, together in enumerate(whole):
        assert torch.equal(torch.cat([rank[kind] for rank in ranks]), together)


@given(st.integers(0, 1000), st.integers(0, 10**9))
def test_a_step_needs_no_step_before_it(step: int, seed: int) -> None:
    walked = [Draw(seed, "dm", number).normal(4) for number in range(min(step, 3), min(step, 3) + 2)]
    assert torch.equal(walked[0], Draw(seed, "dm", min(step, 3)).normal(4))
    assert torch.equal(Draw(seed, "dm", step).normal(4), Draw(seed, "dm", step).normal(4))


def test_every_coordinate_counts() -> None:
    base = Draw(1, "dm", 2)
    others = [Draw(2, "dm", 2), Draw(1, "tsm", 2), Draw(1, "dm", 3), Draw(1, "dm", 2, attempt=1)]
    assert all(not torch.equal(base.normal(8), other.normal(8)) for other in others)
    assert derived_seed(1, 23) != derived_seed(12, 3)


def test_a_draw_goes_on_within_its_step() -> None:
    draw = Draw(0, "dm")
    assert not torch.equal(draw.normal(8), draw.normal(8))


def test_keys_follow_the_weights() -> None:
    keys = Draw(0, "dm").choice(WEIGHTS, 20_000)
    share = torch.bincount(keys, minlength=4) / len(keys)
    torch.testing.assert_close(share, WEIGHTS, atol=0.02, rtol=0)
    assert share[1] == 0


def test_indices_without_replacement_do_not_repeat() -> None:
    assert len(set(Draw(0, "dm").indices(30, 30, replacement=False).tolist())) == 30


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=6), st.data())
def test_an_images_noise_depends_on_its_own_seed_alone(seeds: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(seeds))))
    noise, shuffled = image_noise(seeds, (1, 8, 8)), image_noise([seeds[place] for place in order], (1, 8, 8))
    for place, index in enumerate(order):
        assert torch.equal(shuffled[place], noise[index])
        assert torch.equal(image_noise([seeds[index]], (1, 8, 8))[0], noise[index])


def test_image_noise_is_standard_normal() -> None:
    noise = image_noise(range(2000), (4, 4))
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)


def test_step_noise_is_by_image_and_step() -> None:
    """Standard normal, in no order, and neither another step's nor what the image starts from."""
    noise = noise_by_step(range(2000), (4, 4))
    assert torch.equal(noise(3)[7], noise_by_step([7], (4, 4))(3)[0])
    drawn = [image_noise(range(2000), (4, 4)), noise(0), noise(1)]
    assert float(drawn[1].std()) == pytest.approx(1, abs=0.02)
    together = torch.corrcoef(torch.stack([piece.flatten() for piece in drawn]))
    assert float((together - torch.eye(3)).abs().max()) < 0.03
