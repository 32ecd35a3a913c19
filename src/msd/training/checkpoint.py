"""Everything a stage needs to go on as if it had never stopped, written atomically; the newest two are kept."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from msd.errors import TrainingError, WeightsError
from msd.files import has_sha256, remove_own, replacing, sha256_file, write_json
from msd.reading import Sha256, Stored, open_regular, read_kept, reason
from msd.training.checkpoint_files import INDEX, OWN, PATTERN, checkpoint_name, remove_checkpoints, step_of
from msd.training.loop import Stage
from msd.training.watch import advice

KEEP = 2
_SECTIONS = ("identity", "roles", "stage")


class _Entry(Stored):
    """A line of the list: a checkpoint and its checksum."""

    file: str = Field(pattern=f"^{PATTERN}$")
    step: int
    sha256: Sha256


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

    def _index(self) -> tuple[_Entry, ...]:
        return read_kept(self.folder / INDEX, tuple[_Entry, ...], "a list of checkpoints", ())

    def save(self, step: int, stage: Stage) -> None:
        """Write the state after `step` finished steps, then forget the oldest.

        Raises TrainingError for weights that are not finite.
        """
        refuse_non_finite(stage, step)
        path = self.folder / checkpoint_name(step)
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
        entries = [entry for entry in self._index() if entry.file != path.name][1 - KEEP :]
        entries.append(_Entry(file=path.name, step=step, sha256=sha256_file(path)))
        write_json(self.folder / INDEX, [entry.model_dump() for entry in entries])
        remove_own(self.folder, OWN, keep=[INDEX, *(entry.file for entry in entries)])

    def restore(self, stage: Stage) -> int:
        """Load the newest undamaged checkpoint in place and return its step; 0 when there is none yet.

        Raises WeightsError when all are damaged or they belong to another task or stage.
        """
        candidates = self._candidates()
        for path, whole in candidates:
            state = _load(path) if whole(path) else None
            if state is None:
                continue
            for key, value in self.identity.items():
                if state["identity"].get(key) != value:
                    raise WeightsError(f"{path} belongs to another {key}; choose another --out, or remove {self.folder}.")
            try:
                for name, role in stage.roles.items():
                    role.load_state_dict(state["roles"][name])
                stage.load_state_dict(state["stage"])
                if "watch" in state:  # not in checkpoints of versions without one: the watch begins anew
                    stage.watch.load_state_dict(state["watch"])
            except Exception as error:  # whatever torch makes of a state that does not fit
                raise WeightsError(
                    f"{path} does not fit this stage ({reason(error)}); remove {self.folder} to train this again."
                ) from error
            return state["step"]
        if candidates:
            raise WeightsError(f"all checkpoints in {self.folder} are damaged; remove that folder to train this again.")
        return 0

    def _candidates(self) -> list[tuple[Path, Callable[[Path], bool]]]:
        """The checkpoints, newest first, each with the proof that it is whole: the list's checksum, or where a list is
        missing or broken, the archive's own ones."""
        listed = {entry.file: entry.sha256 for entry in self._index()}
        found = listed or [path.name for path in self.folder.glob("*") if re.fullmatch(PATTERN, path.name)]
        return [
            (self.folder / name, partial(has_sha256, checksum=listed[name]) if listed else _is_whole_archive)
            for name in sorted(found, key=step_of, reverse=True)
        ]

    def clear(self) -> None:
        """Remove all: the stage is finished and its result is saved."""
        remove_checkpoints(self.folder)


def _is_whole_archive(path: Path) -> bool:
    """Whether every piece of the zip archive that torch saves has the checksum noted in it."""
    try:
        with open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
            return archive.testzip() is None
    except Exception:  # of what zipfile makes of damage, only some is BadZipFile
        return False


def _load(path: Path) -> dict[str, Any] | None:
    """The state in `path`; None when there is none that this version wrote."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        whole = state["step"] == step_of(path.name) and all(isinstance(state[key], dict) for key in _SECTIONS)
    except MemoryError:
        raise
    except Exception as error:  # whatever torch or pickle make of damage, whose advice is not ours
        if "allocate memory" in str(error):  # torch's word for it: the file is whole, and must not be given up
            raise MemoryError(str(error)) from error
        return None
    return state if whole else None
