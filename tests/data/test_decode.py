"""Every kind of image comes to the pixels that it shows; what is damaged says so, and what is huge is never decoded."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from data.layouts import encoded
from msd.data.decode import MAX_PIXELS, Damaged, Decoding, background, decode, measure, quiet
from msd.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}}


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_an_image_of_the_right_size_is_not_touched(form: str, fit: Any, pixels: NDArray[np.uint8]) -> None:
    found = decode(encoded(pixels, form, **LOSSLESS[form]), Decoding(6, None, fit))
    assert np.array_equal(found.pixels, planes(pixels))
    assert np.array_equal(decode(pixels, Decoding(6, None, fit)).pixels, planes(pixels))
    assert found.size == (6, 6)


@given(
    side=st.integers(1, 12),
    size=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["crop", "pad", "stretch"]),
)
@settings(max_examples=40)
def test_any_size_comes_to_the_one_asked_for(side: int, size: int, channels: int, fit: Any) -> None:
    pixels = np.full((side, 2 * side, 3), (10, 10, 200), np.uint8)
    found = decode(pixels, Decoding(size, channels, fit, (10, 10, 200)))  # pyright: ignore[reportArgumentType]
    assert found.pixels.shape == (channels, size, size)
    assert found.size == (2 * side, side)
    if channels == 3:  # one colour stays that colour, whatever is done to it
        assert np.array_equal(found.pixels, np.broadcast_to(np.array([10, 10, 200])[:, None, None], (3, size, size)))


def test_padding_adds_equal_borders_and_never_enlarges() -> None:
    pixels = np.full((28, 28), 7, np.uint8)
    padded = decode(pixels, Decoding(32, None, "pad", (0, 0, 0))).pixels[0]
    assert np.array_equal(padded, np.pad(pixels, 2))
    wide = decode(np.full((5, 20), 7, np.uint8), Decoding(8, None, "pad", (255, 255, 255))).pixels[0]
    assert np.array_equal(wide, np.pad(np.full((2, 8), 7, np.uint8), ((3, 3), (0, 0)), constant_values=255))


def test_cropping_keeps_the_middle() -> None:
    pixels = RNG.integers(0, 256, (6, 10), dtype=np.uint8)
    assert np.array_equal(decode(pixels, Decoding(6)).pixels[0], pixels[:, 2:8])


def test_a_coloured_border_makes_a_grey_image_coloured() -> None:
    padded = decode(GREY, Decoding(8, None, "pad", (255, 0, 0))).pixels
    assert padded[:, 0, 0].tolist() == [255, 0, 0]
    assert np.array_equal(padded[:, 1:7, 1:7], np.stack([GREY] * 3))
    assert decode(GREY, Decoding(8, 1, "pad", (255, 0, 0))).pixels.shape == (1, 8, 8)


def test_transparent_pixels_show_the_background() -> None:
    layer = np.dstack([COLOUR, np.zeros((6, 6), np.uint8)])
    layer[:3, :, 3] = 255
    wanted = COLOUR.copy()
    wanted[3:] = (255, 0, 0)
    for form in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        found = decode(encoded(layer, form, **options), Decoding(background=(255, 0, 0)))
        assert np.array_equal(found.pixels, planes(wanted))
        assert found.kind == "with alpha"
    grey = saved(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (6, 6), 0)]))
    assert (decode(grey, Decoding(background=(9, 9, 9))).pixels == 9).all()


def test_half_transparent_pixels_are_mixed() -> None:
    layer = saved(Image.new("RGBA", (2, 2), (200, 0, 0, 128)))
    assert decode(layer, Decoding(background=(0, 0, 0))).pixels[:, 0, 0].tolist() == [100, 0, 0]


def test_sixteen_bits_are_scaled() -> None:
    deep = np.array([[0, 257, 32896, 65535]] * 4, np.uint16)
    found = decode(saved(Image.fromarray(deep)), Decoding())
    assert found.pixels[0, 0].tolist() == [0, 1, 128, 255]
    assert found.kind == "16 bit"


def test_palettes_and_single_bits_show_their_colours() -> None:
    image = Image.fromarray((np.arange(36).reshape(6, 6) % 4).astype(np.uint8), "P")
    palette = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    image.putpalette([value for colour in palette for value in colour])
    wanted = np.array(palette, np.uint8)[np.asarray(image)]
    for form in ("PNG", "GIF", "BMP"):
        found = decode(saved(image, form), Decoding())
        assert np.array_equal(found.pixels, planes(wanted))
        assert found.kind == "palette"
    wanted[np.asarray(image) == 2] = (9, 8, 7)
    for form in ("PNG", "GIF"):
        found = decode(saved(image, form, transparency=2), Decoding(background=(9, 8, 7)))
        assert np.array_equal(found.pixels, planes(wanted))
    bits = GREY > 127
    found = decode(saved(Image.fromarray(bits)), Decoding())
    assert np.array_equal(found.pixels, planes(np.where(bits, 255, 0)))
    assert found.kind == "1 bit"


def test_cmyk_becomes_red_green_and_blue() -> None:
    found = decode(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=100), Decoding())
    red, green, blue = found.pixels.reshape(3, -1).mean(1)
    assert (red > 240, green < 15, blue < 15) == (True, True, True)


def test_the_first_picture_of_many_is_taken() -> None:
    frames = [Image.new("P", (4, 4), 1), Image.new("P", (4, 4), 2)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content, Decoding()).pixels[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_as_their_notes_say(orientation: int, form: str) -> None:
    corner = np.zeros((16, 32), np.uint8)
    corner[:8, :8] = 255
    turned = {
        1: corner, 2: corner[:, ::-1], 3: corner[::-1, ::-1], 4: corner[::-1], 5: corner.T, 6: corner[::-1].T,
        7: corner[::-1, ::-1].T, 8: corner[:, ::-1].T,
    }[orientation]  # fmt: skip
    notes = Image.Exif()
    notes[0x0112] = orientation
    content = encoded(corner, form, exif=notes)
    found = decode(content, Decoding())
    assert found.pixels.shape[1:] == turned.shape
    assert np.abs(found.pixels[0].astype(int) - turned).max() < 60
    assert found.size == turned.shape[::-1]
    if form == "JPEG":
        assert measure(content)[0] == turned.shape[::-1]


def test_broken_notes_leave_a_whole_image_whole() -> None:
    content = encoded(GREY, exif=b"Exif\0\0nothing that could be read")
    with quiet():
        assert np.array_equal(decode(content, Decoding()).pixels[0], GREY)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces a huge picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000), (MAX_PIXELS + 1, 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was decoded"))
    with quiet(), pytest.raises(Damaged, match="it announces"):
        decode(bomb(*size), Decoding(8))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@given(data=st.data())
@settings(max_examples=25)
def test_a_file_that_was_cut_is_damaged_or_whole(form: str, data: st.DataObject) -> None:
    """Never an image that is in part black."""
    content = encoded(np.tile(COLOUR, (4, 4, 1)), form)
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    with quiet():
        whole = decode(content, Decoding()).pixels
        try:
            found = decode(cut, Decoding()).pixels
        except Damaged:
            return
    assert np.array_equal(found, whole)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(max_examples=25)
def test_a_file_with_another_byte_is_read_or_damaged_and_nothing_else(form: str, place: float, value: int) -> None:
    content = bytearray(encoded(COLOUR, form))
    content[int(place * len(content))] = value
    with quiet():
        try:
            found = decode(bytes(content), Decoding(6, 3)).pixels.shape
        except Damaged as error:
            found = str(error)
    assert found == (3, 6, 6) or (isinstance(found, str) and found.isprintable() and found)


@pytest.mark.parametrize("content", [b"", b"no image", b"%PDF-1.7", b"II*\0" + bytes(100)])
def test_other_files_are_no_images(content: bytes) -> None:
    with pytest.raises(Damaged, match=r"it is (empty|not a PNG, JPEG, WebP, BMP or GIF)"):
        decode(content, Decoding())


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(Damaged, match="not a file but a pipe"):
        decode(tmp_path / "pipe.png", Decoding())


def test_backgrounds_are_colours() -> None:
    assert background("white") == (255, 255, 255)
    assert background("#102030") == (16, 32, 48)
    with pytest.raises(DataError, match=r"data\.background 'nice' is no colour; give a name such as white"):
        background("nice")
