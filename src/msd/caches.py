"""Where what is made once and used again lies, outside of any run."""

from __future__ import annotations

import os
from pathlib import Path

from msd import checks
from msd.errors import MsdError, RunError


def cache_folder(error: type[MsdError] = RunError) -> Path:
    """Where caches lie: $MSD_CACHE, else $XDG_CACHE_HOME/msd, else ~/.cache/msd. Raises `error` where there is no home."""
    if own := os.environ.get("MSD_CACHE"):
        return checks.path(own, "MSD_CACHE", error=error).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared and os.path.isabs(shared):
        return Path(shared, "msd")
    try:
        return Path.home() / ".cache" / "msd"
    except RuntimeError as cause:
        raise error("there is no home folder for caches; set MSD_CACHE to a folder.") from cause
