"""Teachers saved as a denoiser folder: the ones shipped in the package, and any made by `msd pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from msd import checks
from msd.conditions.table import Conditions, LabelConditions
from msd.diffusion.denoiser import Denoiser, GuidedDenoiser
from msd.networks.folder import load_denoiser
from msd.teachers.facts import TeacherFacts, read_teacher


@dataclass(frozen=True)
class Teacher:
    """A frozen denoiser, what its keys stand for, and where it came from."""

    denoiser: Denoiser
    facts: TeacherFacts
    conditions: Conditions

    @property
    def source(self) -> str:
        return self.facts.source

    @property
    def hash(self) -> str:
        return self.facts.hash

    @property
    def licence(self) -> str:
        return self.facts.licence

    @property
    def prior(self) -> tuple[float, ...]:
        return self.facts.prior


def load_teacher(source: str | Path, device: torch.device | str = "cpu", guidance: float | None = None) -> Teacher:
    """Load and verify the teacher behind `packaged:NAME`, in a folder or in another maker's checkpoint (str or Path).

    `guidance` is the scale of classifier-free guidance that it teaches with; None as it says itself.

    Raises WeightsError, also for guidance of a network that knows no null class, and RunError for a device that is not
    there, before anything is read.
    """
    device = checks.device(device)
    facts = read_teacher(source, guidance)
    null = None if facts.null_label is None else torch.tensor([facts.null_label], device=device)
    conditions = LabelConditions(facts.num_conditions, facts.embeddings(), null)
    denoiser = load_denoiser(facts.folder, device)
    if facts.guidance != 1 and facts.null_label is not None:
        denoiser = GuidedDenoiser(denoiser, facts.guidance, facts.null_label)
    return Teacher(denoiser, facts, conditions)
