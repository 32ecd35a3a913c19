"""What a finished stage hands on: every role, raw and averaged. The next stage, or another job's start, takes from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from msd import checks
from msd.errors import WeightsError

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
        from safetensors.torch import save_file

        tensors = {}
        for role, weights in self.roles.items():
            for kind, values in (("raw", weights.raw), ("average", weights.average or {})):
                tensors |= {f"{role}/{kind}/{name}": value.detach().cpu().contiguous() for name, value in values.items()}
        # Clones, as safetensors refuses tensors that share memory.
        save_file({name: value.clone() for name, value in tensors.items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Raises WeightsError when the file is missing or damaged."""
        path = checks.path(path, "a bundle's file", error=WeightsError)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read ({error}); make it again, or start from another folder.") from error
        found: dict[str, dict[str, dict[str, Tensor]]] = {}
        for name, value in tensors.items():
            role, kind, tensor = name.split("/", 2)
            found.setdefault(role, {}).setdefault(kind, {})[tensor] = value
        return cls({role: RoleWeights(kinds["raw"], kinds.get("average")) for role, kinds in found.items()})
