"""What the files of a training's checkpoints are called, and their removal. No torch here."""

from __future__ import annotations

import re
from pathlib import Path

from msd.files import remove_own

INDEX = "checkpoints.json"
PATTERN = r"step-[0-9]{7,12}\.pt"
OWN = re.compile(rf"{PATTERN}|{re.escape(INDEX)}")
"""All that is made in a folder of checkpoints, and all that is ever removed from it."""


def checkpoint_name(step: int) -> str:
    return f"step-{step:07d}.pt"


def step_of(name: str) -> int:
    """The step in a checkpoint's name."""
    return int(name.removeprefix("step-").removesuffix(".pt"))


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a stage, and their folder if nothing else is in it."""
    remove_own(folder, OWN)
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
