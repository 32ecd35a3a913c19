"""Names beside the rows of a grid: the grid keeps its pixels, and what the font cannot write is a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.evaluation.lettering import can_write, with_row_names
from msd.evaluation.pictures import grid_image


def grid(num_rows: int, channels: int = 1):
    generator = torch.Generator().manual_seed(0)
    return grid_image(torch.rand(num_rows * 2, channels, 8, 8, generator=generator) * 2 - 1, 2)


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), min_size=1, max_size=4), st.booleans())
def test_the_grid_itself_is_unchanged_whatever_the_names(names: list[str], in_colour: bool) -> None:
    plain = grid(len(names), 3 if in_colour else 1)
    named = with_row_names(plain, names, list(map(str, range(len(names)))))
    assert (named.mode, named.height) == (plain.mode, plain.height)
    assert plain.width < named.width < plain.width + 600
    assert np.array_equal(np.asarray(named)[:, -plain.width :], np.asarray(plain))


def ink(picture, plain, row: int) -> np.ndarray:
    margin = np.asarray(picture)[:, : picture.width - plain.width]
    return margin[2 + row * 42 : 42 + row * 42]


def test_each_name_stands_beside_its_own_row() -> None:
    plain = grid(3)
    picture = with_row_names(plain, ["cat", " ", "dog"], ["0", "1", "2"])
    cat, one, dog = (ink(picture, plain, row) for row in range(3))
    for written in (cat, one, dog):
        assert 0.005 < (written < 128).mean() < 0.4
        assert (written[0] == 255).all()
        assert (written[-1] == 255).all()
    assert not np.array_equal(cat, dog)
    assert np.array_equal(one, ink(with_row_names(plain, ["cat", "1", "dog"], ["", "", ""]), plain, 1))


@pytest.mark.parametrize(
    ("name", "is_possible"),
    [
        ("cat", True),
        ("Z\u00fcrich", True),
        ("\u043a\u043e\u0448\u043a\u0430", True),
        ("\u03b3\u03ac\u03c4\u03b1", True),
        ("\u732b", False),
        ("a\u732b", False),
        ("\u0939\u093f", False),
    ],
)
def test_what_the_font_lacks_is_known(name: str, is_possible: bool) -> None:
    assert can_write(name) is is_possible
    plain = grid(1)
    by_number = with_row_names(plain, ["7"], ["7"])
    assert (with_row_names(plain, [name], ["7"]).tobytes() == by_number.tobytes()) is not is_possible


def test_names_that_run_to_the_left_need_a_layout_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it their letters would stand in the wrong order."""
    from PIL import features

    monkeypatch.setattr(features, "check", lambda name: True)
    assert can_write("\u05d7\u05ea\u05d5\u05dc")
    monkeypatch.setattr(features, "check", lambda name: False)
    assert not can_write("\u05d7\u05ea\u05d5\u05dc")
    assert can_write("cat")
