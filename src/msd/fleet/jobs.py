"""A job: all that one student's process needs to know, and what it says about itself while it runs. No torch here."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from msd.errors import RunError
from msd.files import read_json, sha256_bytes, write_json
from msd.recipe import DMSection

State = Literal["waiting", "running", "done", "failed", "stopped"]
STOPPED = 3
"""Exit code of a worker that was asked to stop and saved its state."""


@dataclass(frozen=True)
class Job:
    """Train one student: `part` of `partition` (its JSON), with these settings. `folder` holds all it writes."""

    name: str
    folder: Path
    teacher: str
    pairs: Path | None
    partition: dict[str, Any]
    part: int
    settings: DMSection
    seed: int
    device: str
    threads: int
    checkpoint_every: int
    sigma_init: float = 80.0

    @property
    def result(self) -> Path:
        """The finished student: a denoiser folder."""
        return self.folder / "student"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def records(self) -> Path:
        return self.folder / "records.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def save(self) -> None:
        value = {**self.__dict__, "folder": str(self.folder), "pairs": str(self.pairs) if self.pairs else None}
        write_json(self.folder / "job.json", value | {"settings": self.settings.model_dump(mode="json")})

    @classmethod
    def load(cls, folder: Path) -> Job:
        value = read_json(folder / "job.json", what="a job")
        value["settings"] = DMSection.model_validate(value["settings"])
        value["pairs"] = Path(value["pairs"]) if value["pairs"] else None
        return cls(**value | {"folder": folder})


def job_seed(recipe_seed: int, name: str) -> int:
    """A seed of its own for each job, the same on every machine."""
    return int(sha256_bytes(f"{recipe_seed}/{name}".encode())[:12], 16)


@dataclass
class Status:
    """What a job last said about itself; on disk as `status.json`."""

    state: State = "waiting"
    step: int = 0
    num_steps: int = 0
    seconds: float = 0.0
    """Training time so far, over all invocations."""
    steps_per_second: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    error: str = ""
    pid: int = 0
    started: float = 0.0
    """Unix time at which the present (or last) process began to train."""
    updated: float = 0.0

    def write(self, folder: Path) -> None:
        self.updated = time.time()
        write_json(folder / "status.json", asdict(self))

    @property
    def seconds_left(self) -> float | None:
        if self.state != "running" or self.steps_per_second <= 0:
            return None
        return (self.num_steps - self.step) / self.steps_per_second


def read_status(folder: Path) -> Status:
    """The job's last word; a job that claims to run but whose process is gone has failed."""
    path = folder / "status.json"
    if not path.exists():
        return Status()
    try:
        status = Status(**read_json(path, what="a job's status"))
    except TypeError as error:
        raise RunError(f"{path} is not a job's status ({error}); remove it.") from error
    if status.state == "running" and not _alive(status.pid):
        status.state, status.error = "failed", "its process ended without a word (killed, or out of memory)"
    return status


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
