"""The user's own images, in whatever layout they come: `scan` tells which one a path holds, `peek` takes a quick look."""

from msd.data.sources.peeking import Peek, peek
from msd.data.sources.scanning import LAYOUTS, scan
from msd.data.sources.source import Entry, Key, Source

__all__ = ["LAYOUTS", "Entry", "Key", "Peek", "Source", "peek", "scan"]
