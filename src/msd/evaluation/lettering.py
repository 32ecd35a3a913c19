"""Names beside the rows of a picture, in the one font that is there wherever matplotlib is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from msd.conditions.names import printable
from msd.evaluation.pictures import GAP, INK, shortened

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

FONT_SIZE = 13
PADDING = 6
MOST_LETTERS = 24
"""Of a name; what is longer loses its middle."""


def with_row_names(grid: Image, names: Sequence[str], numbers: Sequence[str]) -> Image:
    """`grid` (of `pictures.grid_image`, a row a name) with each row's name on its left; the grid itself stays as it is.

    Where the font lacks a letter, or the name cannot be set right, its place in `numbers` is written instead.
    """
    from PIL import Image, ImageDraw

    written = [
        shortened(one, MOST_LETTERS) if (one := printable(name)) and can_write(one) else number
        for name, number in zip(names, numbers, strict=True)
    ]
    font = _font()
    boxes = [font.getbbox(text, anchor="ls") for text in written]
    margin = 2 * PADDING + max(int(right - left) + 1 for left, _, right, _ in boxes)
    picture = Image.new(grid.mode, (margin + grid.width, grid.height), "white")
    picture.paste(grid, (margin, 0))
    drawing, row = ImageDraw.Draw(picture), (grid.height - GAP) // len(written)
    for place, text in enumerate(written):
        middle = GAP + place * row + (row - GAP) // 2
        drawing.text((margin - PADDING, middle), text, fill=INK, font=font, anchor="rm")
    return picture


def can_write(name: str) -> bool:
    """Whether the font has every letter, and letters that change with their neighbours or run to the left can be set."""
    from PIL import features

    if not all(ord(sign) in _letters() for sign in name):
        return False
    is_simple = all(unicodedata.bidirectional(sign) not in ("R", "AL", "AN") for sign in name)
    return is_simple or bool(features.check("raqm") and features.check("fribidi"))


def _font_path() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _font() -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(_font_path(), FONT_SIZE)


@cache
def _letters() -> frozenset[int]:
    """The characters that the font can draw."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())
