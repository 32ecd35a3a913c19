"""Workers that die at a chosen moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from msd.fleet import local
from msd.fleet.workers import Launcher

TRAPS = Path(__file__).parents[2] / "benchmarks" / "traps"


@pytest.fixture(scope="session")
def trappable() -> Iterator[None]:
    """Every worker is forked from a launcher with traps in it: one that is given MSD_TRAP dies when that file is there."""
    if sys.platform != "linux":
        pytest.skip("workers are forked on Linux alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TRAPS), prepend=":")
        patch.setattr(local, "LAUNCHER", launcher := Launcher())
        yield
        launcher.close()
