"""Teachers saved as a denoiser folder: the ones shipped in the package, and any made by `msd pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msd.diffusion.denoiser import Denoiser
from msd.errors import WeightsError
from msd.networks.folder import denoiser_hash, load_denoiser, read_facts

PACKAGED = Path(__file__).parent.parent / "weights"
PREFIX = "packaged:"


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser with where it came from; `hash` identifies its weights and the way they are used."""

    denoiser: Denoiser
    source: str
    hash: str
    licence: str
    facts: dict[str, Any]


def teacher_folder(source: str) -> Path:
    """The folder behind `packaged:NAME` or a path. Raises WeightsError."""
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX)
        folder = PACKAGED / f"{name}-teacher"
        if not folder.is_dir():
            known = ", ".join(PREFIX + path.name.removesuffix("-teacher") for path in PACKAGED.glob("*-teacher"))
            raise WeightsError(f"there is no packaged teacher {name!r}; known: {known}. Or give a folder's path.")
        return folder
    folder = Path(source)
    if not (folder / "denoiser.json").is_file():
        raise WeightsError(f"{folder} is not a teacher's folder (no denoiser.json); make one with `msd pretrain`.")
    return folder


def load_teacher(source: str, device: torch.device | str = "cpu") -> Teacher:
    """Load and verify a teacher. Raises WeightsError."""
    folder = teacher_folder(source)
    denoiser = load_denoiser(folder, device)
    return Teacher(denoiser, source, denoiser_hash(folder), denoiser.spec.licence, read_facts(folder))
