"""Where what can be made again is kept for the user: decoded images, features of them."""

from __future__ import annotations

import os
from pathlib import Path

from msd import checks
from msd.errors import DataError


def cache_folder() -> Path:
    """Where caches lie: $MSD_CACHE, else $XDG_CACHE_HOME/msd, else ~/.cache/msd. Raises DataError where there is no home."""
    if own := os.environ.get("MSD_CACHE"):
        return checks.path(own, "MSD_CACHE", error=DataError).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared and os.path.isabs(shared):
        return Path(shared, "msd")
    try:
        return Path.home() / ".cache" / "msd"
    except RuntimeError as error:
        raise DataError("there is no home folder for a cache; set MSD_CACHE to a folder.") from error
