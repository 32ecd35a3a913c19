"""The results that a command may not get wrong: weights, pairs, partitions, images, scores."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks.abuse.case import Fault

QUALITY = ("frechet_distance", "kid", "precision", "recall", "label_accuracy", "per_part")
PRUNED = ("checkpoints", "rows")
"""Folders that come and go, or that a command under test does not make."""


def tensors(folder: Path) -> dict[str, str]:
    """A hash of every tensor file of results, by its place."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
        if path.is_file() and not set(path.relative_to(folder).parts) & set(PRUNED)
    }


def scores(metrics: Any) -> dict[str, str]:
    """What must be equal however often it is measured."""
    return {name: json.dumps([row.get(key) for key in QUALITY]) for name, row in metrics["rows"].items()}


def images(path: Path) -> str:
    """A hash of the arrays of an .npz, whose bytes depend on the time of day."""
    import numpy as np

    with np.load(path) as arrays:
        return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def same_tensors(folder: Path, expected: dict[str, str], only: str = "") -> list[Fault]:
    """A fault for every expected tensor file (whose path has `only` in it) that is missing or different."""
    found = tensors(folder)
    return [
        Fault("wrong", f"{path} {'is not the undisturbed one' if path in found else 'is missing'} after exit code 0")
        for path, checksum in expected.items()
        if only in path and found.get(path) != checksum
    ]
