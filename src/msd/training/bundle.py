"""What a finished stage hands on: every role, raw and averaged. The next stage, or another job's start, takes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from msd import checks
from msd.errors import WeightsError
from msd.networks.tensors import load_tensors, save_tensors

AGAIN = "remove it and give the same command again, or start from another folder"

Weights = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class RoleWeights:
    """A role's weights by name: `raw`, as the optimiser left them, and their `average` where the role had one."""

    raw: Weights
    average: Weights | None = None


@dataclass(frozen=True)
class Bundle:
    """All roles of a stage by name; an empty one is what the first stage of a fresh start finds."""

    roles: Mapping[str, RoleWeights] = field(default_factory=dict)

    def restore(self, role: str, module: Network) -> Network:
        """Load the role's raw weights into `module` if there are any; returns it. Raises WeightsError for a misfit."""
        if role in self.roles:
            try:
                module.load_state_dict(dict(self.roles[role].raw))
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise WeightsError(
                    f"the {role} that the stage before handed on does not fit this one ({reason}); "
                    "start from a student of the same network."
                ) from error
        return module

    def save(self, path: Path) -> None:
        """Write one safetensors file, named `role/raw/tensor` and `role/average/tensor`; the caller makes it atomic."""
        tensors = {}
        for role, weights in self.roles.items():
            for kind, values in (("raw", weights.raw), ("average", weights.average or {})):
                tensors |= {f"{role}/{kind}/{name}": value.detach().cpu().contiguous() for name, value in values.items()}
        # Clones, as safetensors refuses tensors that share memory.
        save_tensors({name: value.clone() for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Raises WeightsError when the file is missing or damaged."""
        path = checks.path(path, "a bundle's file", error=WeightsError)
        found: dict[str, dict[str, dict[str, Tensor]]] = {}
        for name, value in load_tensors(path, AGAIN).items():
            role, kind, tensor = [*name.split("/", 2), "", ""][:3]
            found.setdefault(role, {}).setdefault(kind, {})[tensor] = value
        for role, kinds in found.items():
            if "raw" not in kinds:
                raise WeightsError(f"{path} has no raw weights of the {role}, so it is no stage's result; {AGAIN}.")
        return cls({role: RoleWeights(kinds["raw"], kinds.get("average")) for role, kinds in found.items()})
