"""Blueprints: what published teachers are built from, without their weights, so that a plan can be made before the file is
there. No torch here.

A recipe names one beside the file (`teacher.blueprint`). Where the file is, it counts, and has to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msd.errors import WeightsError
from msd.files import sha256_json
from msd.networks.anatomies import NULL_LABELS
from msd.networks.facts import SpecNotes
from msd.reading import Kind, Notes, read_model
from msd.teachers.facts import TeacherFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

PACKAGED = Path(__file__).parent.parent / "blueprints"
_KIND = Kind("a blueprint", "install msd again", WeightsError)


class Blueprint(Notes):
    """Kind and configuration of a network and how it is used, as a saved denoiser's files have them."""

    about: str
    network: str
    config: dict[str, Any]
    spec: dict[str, Any]


class BlueprintFacts(TeacherFacts):
    """What is known of a teacher whose file is not there. Its hash is the blueprint's, so nothing else has it."""

    def embeddings(self) -> NDArray[Any]:
        """In place of what lies in the file: no class like any other."""
        return np.eye(self.num_conditions, dtype=np.float32)


def blueprints() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PACKAGED.glob("*.json"))}


def read_blueprint(name: str) -> Blueprint:
    """Raises WeightsError for a name that is no blueprint's, naming those that there are."""
    known = blueprints()
    if name not in known:
        raise WeightsError(f"teacher.blueprint: there is no blueprint {name!r}; known: {', '.join(known)}.")
    return read_model(known[name], Blueprint, _KIND)


def blueprint_teacher(source: str, name: str, guidance: float | None = None) -> BlueprintFacts:
    """The teacher that the file at `source` will be, guided by another scale than its own if one is given.

    Raises WeightsError.
    """
    blueprint = read_blueprint(name)
    spec = SpecNotes.model_validate(blueprint.spec)
    num = spec.num_conditions
    return BlueprintFacts(
        source,
        Path(),
        sha256_json(blueprint.model_dump(mode="json")),
        num,
        (1 / num,) * num,
        spec.licence,
        spec.noise_shape,
        spec.sigma_min,
        spec.sigma_max,
        config=blueprint.config,
        kind=blueprint.network,
        guidance=spec.guidance if guidance is None else guidance,
        null_label=blueprint.config.get(NULL_LABELS.get(blueprint.network, "")),
    )


def check_agreement(teacher: TeacherFacts, name: str) -> None:
    """Raises WeightsError, naming both, where the teacher is not what the blueprint says."""
    blueprint = read_blueprint(name)
    spec = SpecNotes.model_validate(blueprint.spec)
    pairs: list[tuple[str, Any, Any]] = [("network", teacher.kind, blueprint.network)]
    pairs += [
        (field, getattr(teacher, field), getattr(spec, field))
        for field in ("noise_shape", "num_conditions", "sigma_min", "sigma_max")
    ]
    config: Mapping[str, Any] = teacher.config or {}
    pairs += [(key, config.get(key), value) for key, value in blueprint.config.items()]
    for what, theirs, ours in pairs:
        if _plain(theirs) != _plain(ours):
            raise WeightsError(
                f"the teacher {teacher.source} is not what blueprint {name} says: its {what} is {theirs}, not {ours}; give "
                "the file that the recipe names, or set teacher.blueprint=null."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
