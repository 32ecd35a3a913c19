"""From an encoded image, or pixels of any size, to `[C, S, S]` uint8: what is damaged says so, what is huge stays shut."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from msd import checks
from msd.errors import DataError
from msd.reading import open_regular, reason

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""No other decoder is ever tried, whatever a file's name."""
MAX_PIXELS = 2**26
"""Of one image, by its header: 8192 x 8192. More is refused before it is decoded, as a few bytes can announce gigabytes."""
MAX_FILE_BYTES = 2**28
"""Of one encoded image; none of at most MAX_PIXELS needs more."""
Content = bytes | Path | NDArray[np.uint8]
"""An image: an encoded file, the path of one, or its pixels `[H, W]` or `[H, W, C]`."""
_ORIENTATION = 0x0112
_T = Image.Transpose
_UPRIGHT = {
    2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE, 6: _T.ROTATE_270, 7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}  # fmt: skip
"""What puts an image upright, by the orientation that its EXIF data tell."""
_KINDS = {
    "1": "1 bit",
    "L": "grey",
    "LA": "with alpha",
    "RGBA": "with alpha",
    "P": "palette",
    "PA": "palette",
    "CMYK": "CMYK",
}


class Damaged(ValueError):
    """Why an image cannot be used, in a few words: it may be skipped, if the recipe says so."""


@dataclass(frozen=True)
class Decoding:
    """How images are brought to one form. `size` None leaves it; `channels` None is 1 where R = G = B everywhere, else 3."""

    size: int | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    background: tuple[int, int, int] = (255, 255, 255)


@dataclass(frozen=True)
class Decoded:
    """Pixels `[C, H, W]` uint8, the size that the image came in (width, height), and what kind it was."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    kind: str


def background(name: str) -> tuple[int, int, int]:
    """The red, green and blue of a colour's name or "#rrggbb". Raises DataError."""
    try:
        red, green, blue = ImageColor.getrgb(name)[:3]
    except ValueError as error:
        advice = 'give a name such as white or black, or "#rrggbb"'
        raise DataError(f"data.background {checks.shown(name)} is no colour; {advice}.") from error
    return red, green, blue


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Pillow warns of, in all threads: what matters is a `Damaged` here. Open it outside of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL(\..*)?")
        yield


def decode(content: Content, how: Decoding) -> Decoded:
    """Raises Damaged."""
    try:
        image = _of_pixels(content) if isinstance(content, np.ndarray) else _upright(_opened(content))
        kind = _kind(image)
        plain = _plain(image, how)
        return Decoded(_array(_fitted(plain, how), how.channels), image.size, kind)
    except (Damaged, MemoryError):
        raise
    except Exception as error:  # decoders raise anything on bytes that somebody broke
        raise Damaged(reason(error)) from error


def measure(content: Content) -> tuple[tuple[int, int], str]:
    """Size (width, height) and kind of an image by its header alone. Raises Damaged."""
    if isinstance(content, np.ndarray):
        image = _of_pixels(content)
        return image.size, _kind(image)
    try:
        image = _opened(content)
        orientation = image.getexif().get(_ORIENTATION) if image.format == "JPEG" else 1
    except (Damaged, MemoryError):
        raise
    except Exception as error:
        raise Damaged(reason(error)) from error
    width, height = image.size
    return ((height, width) if orientation in (5, 6, 7, 8) else (width, height)), _kind(image)


def _opened(content: bytes | Path) -> Image.Image:
    """Known by its header, not decoded yet."""
    if isinstance(content, Path):
        with open_regular(content) as stream:
            if os.fstat(stream.fileno()).st_size > MAX_FILE_BYTES:
                raise Damaged(f"it is larger than {MAX_FILE_BYTES:,} bytes")
            content = stream.read()
    if not content:
        raise Damaged("it is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise Damaged("it is not a PNG, JPEG, WebP, BMP or GIF, or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise Damaged(f"it announces more than the {MAX_PIXELS:,} pixels that are read") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Damaged(f"it announces {width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} that are read")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Decoded, and turned as its EXIF data say. Raises what the decoder does."""
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken notes about an image that is whole
        turn = None
    return image if turn is None else image.transpose(turn)


def _of_pixels(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _kind(image: Image.Image) -> str:
    if _is_deep(image):
        return "16 bit"
    return _KINDS.get(image.mode, "with alpha" if "transparency" in image.info else "colour")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _plain(image: Image.Image, how: Decoding) -> Image.Image:
    """As L or RGB: upright, 8 bits, opaque."""
    if _is_deep(image):
        image = _shallow(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, (*how.background, 255))
        image.alpha_composite(layer)
    if image.mode == "1":
        image = image.convert("L")
    if how.channels == 1:
        return image if image.mode == "L" else image.convert("RGB").convert("L")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _shallow(image: Image.Image) -> Image.Image:
    """16 bits as the upper 8 of them, which is also what Pillow makes of 16-bit colours."""
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    shallow = Image.fromarray((values >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shallow.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return shallow


def _fitted(image: Image.Image, how: Decoding) -> Image.Image:
    """Brought to size; an image that has it already is returned as it is."""
    size = how.size
    width, height = image.size
    if size is None or (width, height) == (size, size):
        return image
    if how.fit == "stretch":
        return image.resize((size, size), Image.Resampling.LANCZOS)
    if how.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square if side == size else square.resize((size, size), Image.Resampling.LANCZOS)
    scale = min(1.0, size / max(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    small = image if scale == 1 else image.resize((width, height), Image.Resampling.LANCZOS)
    return _on_background(small, size, how)


def _on_background(image: Image.Image, size: int, how: Decoding) -> Image.Image:
    red, green, blue = how.background
    if image.mode == "L" and how.channels is None and not red == green == blue:
        image = image.convert("RGB")
    behind = Image.new("RGB", (1, 1), how.background).convert(image.mode).getpixel((0, 0))
    whole = Image.new(image.mode, (size, size), behind)
    whole.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return whole


def _array(image: Image.Image, channels: int | None) -> NDArray[np.uint8]:
    """`[C, H, W]`: with `channels` None one channel if red, green and blue are the same everywhere."""
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None] if channels != 3 else as_colour(pixels[None])
    red, green, blue = pixels.transpose(2, 0, 1)
    if channels is None and np.array_equal(red, green) and np.array_equal(green, blue):
        return red[None]
    return pixels.transpose(2, 0, 1)


def as_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[1, H, W]` or `[3, H, W]` as `[3, H, W]`."""
    return np.broadcast_to(pixels, (3, *pixels.shape[1:]))
