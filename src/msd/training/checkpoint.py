"""Everything a stage needs to go on as if it had never stopped, written atomically; the newest two are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from msd.errors import TrainingError, WeightsError
from msd.files import read_json, replacing, sha256_file, write_json
from msd.training.loop import Stage
from msd.training.watch import advice

KEEP = 2
INDEX = "checkpoints.json"


def num_bytes(value: Any) -> int:
    """Size of all tensors in nested dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(num_bytes(one) for one in values)


def refuse_non_finite(stage: Stage, step: int) -> None:
    """Raises TrainingError when a weight is not a finite number: nothing of that kind is ever saved."""
    for name, role in stage.roles.items():
        if not role.is_finite():
            raise TrainingError(
                f"the weights of the {name} are not finite after step {step} of stage {stage.name}; the rate is too high: "
                f"{advice(stage.name, name, role.settings)}."
            )


class Checkpoints:
    """The checkpoints of one job in `folder`. `identity` (the task's hash, the stage's place) must match on resume."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.folder = folder
        self.identity = dict(identity)

    def _index(self) -> list[dict[str, Any]]:
        path = self.folder / INDEX
        return read_json(path, what="the list of checkpoints", error=WeightsError) if path.exists() else []

    def save(self, step: int, stage: Stage) -> None:
        """Write the state after `step` finished steps, then forget the oldest.

        Raises TrainingError for weights that are not finite.
        """
        refuse_non_finite(stage, step)
        path = self.folder / f"step-{step:07d}.pt"
        state = {
            "identity": self.identity,
            "step": step,
            "roles": {name: role.state_dict() for name, role in stage.roles.items()},
            "stage": stage.state_dict(),
            "watch": stage.watch.state_dict(),
        }
        # Into a stream: given a name, torch does not tell a full disk from other errors.
        with replacing(path, num_bytes(state)) as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
        entries = [entry for entry in self._index() if entry["file"] != path.name]
        entries.append({"file": path.name, "step": step, "sha256": sha256_file(path)})
        write_json(self.folder / INDEX, entries[-KEEP:])
        for old in entries[:-KEEP]:
            (self.folder / old["file"]).unlink(missing_ok=True)

    def restore(self, stage: Stage) -> int:
        """Load the newest undamaged checkpoint in place and return its step; 0 when there is none yet.

        Raises WeightsError when all are damaged or they belong to another task or stage.
        """
        entries = self._index()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            if not path.is_file() or sha256_file(path) != entry["sha256"]:
                continue
            state = torch.load(path, map_location="cpu", weights_only=True)
            for key, value in self.identity.items():
                if state["identity"].get(key) != value:
                    raise WeightsError(f"{path} belongs to another {key}; choose another --out, or remove {self.folder}.")
            for name, role in stage.roles.items():
                role.load_state_dict(state["roles"][name])
            stage.load_state_dict(state["stage"])
            if "watch" in state:  # not in checkpoints of versions without one: the watch begins anew
                stage.watch.load_state_dict(state["watch"])
            return state["step"]
        if entries:
            raise WeightsError(f"all checkpoints in {self.folder} are damaged; remove that folder to train this again.")
        return 0

    def clear(self) -> None:
        """Remove all: the stage is finished and its result is saved."""
        for entry in self._index():
            (self.folder / entry["file"]).unlink(missing_ok=True)
        (self.folder / INDEX).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
