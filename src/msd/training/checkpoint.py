"""Everything a training needs to go on as if it had never stopped, written atomically; the newest two are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from msd.errors import WeightsError
from msd.files import read_json, replacing, sha256_file, write_json
from msd.training.roles import Role

KEEP = 2
INDEX = "checkpoints.json"


class Checkpoints:
    """The checkpoints of one job in `folder`. `identity` (partition hash, teacher hash...) must match on resume."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder = folder
        self.identity = dict(identity)

    def _index(self) -> list[dict[str, Any]]:
        path = self.folder / INDEX
        return read_json(path, what="the list of checkpoints", error=WeightsError) if path.exists() else []

    def save(self, step: int, roles: Mapping[str, Role], generator: torch.Generator) -> None:
        """Write the state after `step` finished steps, then forget the oldest."""
        path = self.folder / f"step-{step:07d}.pt"
        state = {
            "identity": self.identity,
            "step": step,
            "roles": {name: role.state_dict() for name, role in roles.items()},
            "generator": generator.get_state(),
        }
        with replacing(path) as temporary:
            torch.save(state, temporary)
        entries = [entry for entry in self._index() if entry["file"] != path.name]
        entries.append({"file": path.name, "step": step, "sha256": sha256_file(path)})
        write_json(self.folder / INDEX, entries[-KEEP:])
        for old in entries[:-KEEP]:
            (self.folder / old["file"]).unlink(missing_ok=True)

    def restore(self, roles: Mapping[str, Role], generator: torch.Generator) -> int:
        """Load the newest undamaged checkpoint in place and return its step; 0 when there is none yet.

        Raises WeightsError when all are damaged or they belong to another partition or teacher.
        """
        entries = self._index()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                continue
            state = torch.load(path, map_location="cpu", weights_only=True)
            for key, value in self.identity.items():
                if state["identity"].get(key) != value:
                    raise WeightsError(
                        f"{path} belongs to another {key}; choose another --out, or remove {self.folder.parent}."
                    )
            for name, role in roles.items():
                role.load_state_dict(state["roles"][name])
            generator.set_state(state["generator"])
            return state["step"]
        if entries:
            raise WeightsError(
                f"all checkpoints in {self.folder} are damaged; remove {self.folder.parent} to train this student again."
            )
        return 0

    def clear(self) -> None:
        """Remove all: the job is finished and its result is saved."""
        for entry in self._index():
            (self.folder / entry["file"]).unlink(missing_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)
