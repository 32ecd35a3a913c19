"""What is known of a teacher before anything is computed with it: read without torch, for plans and partitions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd import checks
from msd.conditions.names import numbered
from msd.errors import WeightsError
from msd.files import sha256_json
from msd.networks.anatomies import NULL_LABELS, UNET
from msd.networks.facts import FACTS, REMEDY, WEIGHTS, FactNotes, Origin, identity, read_config, verified_facts
from msd.networks.tensors import load_array
from msd.teachers.hub import located

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGED = Path(__file__).parent.parent / "weights"
PREFIX = "packaged:"
EMBEDDINGS = ("class_embedding.weight", "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight")
"""The tensors by which networks tell their classes apart: U-Nets, a DiT (in its first block)."""


@dataclass(frozen=True)
class TeacherFacts:
    """Where a teacher came from and what it knows; `hash` identifies its content, wherever it lies."""

    source: str
    folder: Path
    hash: str
    num_conditions: int
    prior: tuple[float, ...]
    """How often each condition occurred in its training set; uniform where that was not recorded."""
    licence: str
    noise_shape: tuple[int, ...]
    sigma_min: float
    sigma_max: float
    """The noise levels it was trained on."""
    classes: tuple[str, ...] = ()
    """Name of each condition; their numbers where none are recorded. No part of `hash`."""
    config: Mapping[str, Any] | None = None
    """What its network is built from; None where that is not known yet."""
    origin: Origin | None = None
    """What it was read from, if another maker's."""
    kind: str = UNET
    """Of network, as `networks.anatomies` knows it."""
    guidance: float = 1.0
    """Scale of classifier-free guidance that it teaches with; 1 is none."""
    null_label: int | None = None
    """The label that stands for no class; None where its network knows none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes) or numbered(self.num_conditions))

    def embeddings(self) -> NDArray[Any] | None:
        """What it has learned to tell its conditions apart by, `[num_conditions, D]`; None when it has no such table."""
        for name in EMBEDDINGS:
            if (table := load_array(self.folder / WEIGHTS, name, REMEDY)) is not None:
                return table[: self.num_conditions]  # a last row may stand for "no condition"
        return None


def teacher_folder(source: str | Path) -> Path:
    """The folder behind `packaged:NAME` or a path; of another maker's file, the one it is converted to, once.

    Raises WeightsError.
    """
    source = str(checks.path(source, "a teacher's source", error=WeightsError))
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX)
        folder = PACKAGED / f"{name}-teacher"
        if not folder.is_dir():
            known = ", ".join(PREFIX + path.name.removesuffix("-teacher") for path in sorted(PACKAGED.glob("*-teacher")))
            raise WeightsError(f"there is no packaged teacher {name!r}; known: {known}. Or give a folder's path.")
        return folder
    folder = located(source)
    if not os.path.lexists(folder):
        raise WeightsError(
            f"the teacher {folder} is not there; put the file or folder there, or set teacher.source to where it lies."
        )
    if not (folder / FACTS).is_file():
        from msd.teachers.converted import converted, is_foreign  # brings torch

        if is_foreign(folder):
            return converted(folder)
        raise WeightsError(
            f"{folder} is not a teacher's folder (no {FACTS}); make one with `msd pretrain`, or give a checkpoint."
        )
    return folder


def read_teacher(source: str | Path, guidance: float | None = None) -> TeacherFacts:
    """The facts of the teacher behind `packaged:NAME` or a folder, its files checked against their checksums.

    With another `guidance` than its own it is another teacher. Raises WeightsError, also for a one-step student, which
    cannot teach, and for guidance of a network that knows no null class.
    """
    folder = teacher_folder(source)
    facts = verified_facts(folder)
    known = FactNotes.model_validate(facts)
    spec = known.spec
    if spec.sigma_init is not None:
        raise WeightsError(
            f"{folder} is a one-step student (its sigma_init is {spec.sigma_init:g}), which knows one noise level only; "
            "give the teacher it was made from."
        )
    num = spec.num_conditions
    prior = known.prior or (1 / num,) * num
    if len(prior) != num:
        raise WeightsError(f"{folder / FACTS} has a prior of {len(prior)} values for {num} conditions; mend one of them.")
    classes = known.classes or ()
    if classes and len(classes) != num:
        raise WeightsError(f"{folder / FACTS} has {len(classes)} names (classes) for {num} conditions; mend one of them.")
    levels = spec.sigma_min, spec.sigma_max
    config = read_config(folder)
    null_label = config.get(NULL_LABELS.get(known.network, ""))
    scale, content = spec.guidance if guidance is None else guidance, identity(facts)
    if scale != 1 and null_label is None:
        raise WeightsError(
            f"{folder} knows no null class, so it cannot be guided; leave teacher.guidance out (guidance is known of "
            f"{', '.join(NULL_LABELS)})."
        )
    if scale != spec.guidance:
        content = sha256_json([content, {"guidance": scale}])
    return TeacherFacts(
        str(source), folder, content, num, prior, spec.licence, spec.noise_shape, *levels, classes, config,
        known.origin, known.network, scale, null_label,
    )  # fmt: skip
