"""Measurements are made once for their content, whoever asks; a broken one is a warning and is made again."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msd.evaluation.kept import Kept, Measurement

QUALITY = Measurement("quality", {"row": {"students": ["a", "b"]}, "seed": 1, "sizes": (1, 16)})


def never() -> Any:
    raise AssertionError("measured again")


def path_of(folder: Path) -> Path:
    (path,) = folder.glob("*.json")
    return path


def test_the_same_content_is_measured_once(tmp_path: Path) -> None:
    said: list[str] = []
    first = Kept(tmp_path, said.append)
    value = {"distance": 1.5, "per_part": [1.0, None]}
    assert first.answer(QUALITY, lambda: value) == value
    second = Kept(tmp_path, said.append)
    assert second.answer(Measurement("quality", {"sizes": [1, 16], **QUALITY.of}), never) == value
    assert (second.seconds, said) == (first.seconds, [])


@pytest.mark.parametrize(
    "other",
    [Measurement("latency", QUALITY.of), Measurement("quality", {**QUALITY.of, "seed": 2})],
)
def test_other_content_is_measured_for_itself(tmp_path: Path, other: Measurement) -> None:
    kept = Kept(tmp_path, pytest.fail)
    assert kept.answer(QUALITY, lambda: 1) == 1
    assert kept.answer(other, lambda: 2) == 2
    assert kept.answer(QUALITY, never) == 1


def test_nothing_is_kept_without_a_folder(tmp_path: Path) -> None:
    kept = Kept(None, pytest.fail)
    assert kept.answer(QUALITY, lambda: 1) == 1
    assert kept.answer(QUALITY, lambda: 2) == 2


def test_numbers_that_are_not_finite_are_null_at_once_and_later(tmp_path: Path) -> None:
    kept = Kept(tmp_path, pytest.fail)
    assert kept.answer(QUALITY, lambda: {"distance": math.nan, "kid": [math.inf]}) == {"distance": None, "kid": [None]}
    assert kept.answer(QUALITY, never) == {"distance": None, "kid": [None]}


def edited(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 0.1}))


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path], object]] = [
    edited,
    replaced_by_a_pipe,
    lambda path: path.write_bytes(b"\xff\xfe{"),
    lambda path: path.write_text(path.read_text()[:-20]),
    lambda path: path.write_text("[]"),
    lambda path: path.write_text("[" * 100_000),
    lambda path: path.write_text(" " * 2**21),
    lambda path: path.write_text('{"value": 1, "seconds": "long", "sha256": null}'),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_measurement_is_made_again_with_a_warning(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    Kept(tmp_path, pytest.fail).answer(QUALITY, lambda: 1.5)
    damage(path_of(tmp_path))
    said: list[str] = []
    assert Kept(tmp_path, said.append).answer(QUALITY, lambda: 1.5) == 1.5
    assert len(said) == 1
    assert "is ignored, and made again" in said[0]
    assert Kept(tmp_path, pytest.fail).answer(QUALITY, never) == 1.5


def test_a_value_that_cannot_be_kept_is_still_an_answer(tmp_path: Path) -> None:
    Kept(tmp_path, pytest.fail).answer(QUALITY, lambda: 1.5)
    replaced_by_a_folder(path_of(tmp_path))
    said: list[str] = []
    assert Kept(tmp_path, said.append).answer(QUALITY, lambda: 1.5) == 1.5
    assert "is not kept" in said[1]


def test_measurements_are_read_without_torch() -> None:
    code = "import sys; import msd.evaluation.kept; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
