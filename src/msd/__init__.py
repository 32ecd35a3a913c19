"""Multi-Student Distillation: one diffusion teacher, a cohort of one-step students, one per part of the conditions.

The names below are the public API; they load on first use, so that `import msd` stays instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msd.cohort.generate import Cohort as Cohort
    from msd.conditions.partition import Partition as Partition
    from msd.diffusion.denoiser import Denoiser as Denoiser
    from msd.diffusion.solvers import Solver as Solver
    from msd.errors import MsdError as MsdError
    from msd.networks.folder import load_denoiser as load_denoiser
    from msd.recipe import Recipe as Recipe
    from msd.recipe import load_recipe as load_recipe
    from msd.teachers.analytic import GaussianMixtureTeacher as GaussianMixtureTeacher

__version__ = "0.1.0"

_HOMES = {
    "Cohort": "msd.cohort.generate",
    "Denoiser": "msd.diffusion.denoiser",
    "GaussianMixtureTeacher": "msd.teachers.analytic",
    "MsdError": "msd.errors",
    "Partition": "msd.conditions.partition",
    "Recipe": "msd.recipe",
    "Solver": "msd.diffusion.solvers",
    "load_denoiser": "msd.networks.folder",
    "load_recipe": "msd.recipe",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'msd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
