"""What was found in a source while it was read: kept with the cache, and told before anything is trained on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Findings:
    """Counts of what a source holds, as far as `data` asks for it (its split)."""

    source: str
    layout: str
    splits: dict[str, int]
    """Images of each part that the source names."""
    num_images: int
    """Without damaged ones."""
    classes: dict[str, int]
    """Images of each class, in the order of the labels."""
    sizes: dict[str, int]
    """`28x28` (width x height) -> images that came in this size, the most frequent first; the rarest ones as "others"."""
    kinds: dict[str, int]
    """Grey, colour, with alpha, palette, 1 bit, 16 bit, CMYK: images that came so, the most frequent first."""
    channels: int
    """Of the cache: 1 for grey, 3 for colour."""
    damaged: tuple[str, ...]
    """`NAME: reason` of each image that was skipped."""
    hash: str
    """The ImageSet's."""
    ignored: int = 0
    """Files of a folder or zip that are no images, or that its list does not name."""
