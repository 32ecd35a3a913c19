"""The words of a recipe: names that stand for something, and which values are paths unless they are one of them."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Literal

StageName = Literal["tsm", "dm", "adm"]
"""The stages a student can go through: each is also the name of its section in the recipe."""
STAGES: tuple[str, ...] = typing.get_args(StageName)

Precision = Literal["float32", "bfloat16"]
"""What trainings compute in. float16 is not offered: DMD2's authors saw it diverge."""

OdeMethod = Literal["heun", "euler", "dpmpp2m"]
SolverMethod = Literal[OdeMethod, "heun-sde"]
"""The solvers of `diffusion/solvers.py`, which needs torch; those of the ODE make of the same noise the same sample."""
ODE_METHODS: tuple[str, ...] = typing.get_args(OdeMethod)
SOLVER_METHODS: tuple[str, ...] = typing.get_args(SolverMethod)

RANDOM = "random"
"""The word for a student that starts from no network's weights."""
ROW_PREFIX = "row:"
"""Before the name of a row: its student, to start others from."""
TEACHER = "teacher"
"""The word for the teacher where a recipe names a source: what students start from, whose samples the pairs hold."""
STUDENT = "student"
"""The role that a cohort is made of, and so the name of its folder in a job's result."""
PRETRAIN = "pretrain"
"""The word for a teacher that the run trains itself, from the recipe's data."""
CLASSIFIER, LITE0 = "classifier", "lite0"
"""The words for feature networks: one trained on the recipe's data, and ImageNet's EfficientNet-Lite0."""
INCEPTION = "inception"
INCEPTION_PREFIX = f"{INCEPTION}:"
"""Before the path of a file of weights: the Inception network that published FIDs are measured with."""
PRIOR, BALANCED = "prior", "balanced"
"""The words for how the evaluation's conditions are drawn."""
DATA = "data"
"""The word for the recipe's own images, as the reference of its metrics."""
PACKAGED_PREFIX = "packaged:"
HUB_PREFIX = "hub:"
"""Before the name of a folder on the Hugging Face hub, which nothing is fetched from unless it is named."""
DIGITS = f"{PACKAGED_PREFIX}digits"

PATHS: dict[str, Callable[[str], bool]] = {
    "data.source": lambda value: not value.startswith(PACKAGED_PREFIX),
    "teacher.source": lambda value: value != PRETRAIN and not value.startswith((PACKAGED_PREFIX, HUB_PREFIX)),
    "partition.file": lambda value: True,
    "student.start": lambda value: value not in (TEACHER, RANDOM) and not value.startswith(ROW_PREFIX),
    "evaluation.features": lambda value: (
        value not in (CLASSIFIER, LITE0, INCEPTION, INCEPTION_PREFIX) and not value.startswith(PACKAGED_PREFIX)
    ),
    "evaluation.reference": lambda value: value != DATA and not value.startswith(PACKAGED_PREFIX),
}
"""Values that may be paths, each with the test whether it is one. A relative path belongs to the folder it was typed in, and
a path is never part of a run's identity (its content is)."""
PATH_PREFIXES = (INCEPTION_PREFIX,)
"""What may stand before a path, and says what kind of file it is."""
