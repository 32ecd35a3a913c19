"""Caches of images that tests make lie in their own folders."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache of images"
    monkeypatch.setenv("MSD_CACHE", str(place))
    return place
