"""Tasks and jobs: what decides a result, and the restartable piece of work that makes it. No torch here."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from msd.conditions.partition import Partition
from msd.errors import MsdError, RunError, WeightsError
from msd.files import has_sha256, sha256_file, sha256_json, write_json
from msd.owner import owner_of, remove_gone
from msd.reading import (
    Kind,
    Measured,
    Name,
    Notes,
    RelativePath,
    Sha256,
    clause,
    inside,
    read_json,
    read_kept,
    read_model,
    set_aside,
    validated,
)
from msd.recipe import STUDENT, DataSection, NetworkSection, Precision, Section, SolverSection, section_of
from msd.run import AGAIN
from msd.training.checkpoint_files import remove_checkpoints

SCHEMA = 3
JOB, RESULT, STATUS, LOG = "job.json", "result.json", "status.json", "log.txt"
BUNDLE, CHECKPOINTS = "bundle.safetensors", "checkpoints"
State = Literal["waiting", "running", "done", "failed", "stopped"]
LAST_WORDS = "MSD_LAST_WORDS"
"""Variable with the number of a pipe: where a worker says why it failed, as a full disk may take nothing more."""
STOPPED = 3
"""Exit code of a worker that was asked to stop and saved its state."""


class _Hashed(Section):
    @cached_property
    def hash(self) -> str:
        """Identity of the result: equal tasks have equal results, wherever and under whatever name they are made.

        A partition counts by its own hash, as it does not matter how it was found.
        """
        content = self.model_dump(mode="json")
        if content.get("partition"):
            content["partition"] = content["partition"]["hash"]
        return sha256_json({"schema": SCHEMA, **content})


class StageTask(Section):
    """A stage's name and all its settings."""

    name: Name
    settings: dict[str, Any]


class TrainTask(_Hashed):
    """What decides the weights of a training: its stages in order, and by content all that they read."""

    kind: Literal["train"] = "train"
    seed: int
    stages: tuple[StageTask, ...]
    teacher: str | None = None
    """Hash of the teacher."""
    start: str | None = None
    """Hash of what the student starts from (content, or the task of the job that makes it), None for the teacher."""
    weights: Literal["start", "random"] = "start"
    """Whether it starts with the start's weights."""
    reduce: float | None = None
    """Share of the start's parameters that it does without; None for the start's own network."""
    critic: Literal["teacher", "student"] = "teacher"
    """Whose network the critic begins as."""
    sigma_init: float | None = None
    partition: dict[str, Any] | None = None
    """The partition itself (`Partition.to_json`), with its own hash in it."""
    part: int | None = None
    pairs: str | None = None
    """Hash of the task that makes the pairs."""
    data: str | None = None
    """Hash of the real images, where a stage sees any."""
    network: dict[str, Any] | None = None
    """Of a network that is built anew."""
    precision: Precision = "float32"
    """What it is computed in."""
    prior: Literal["data", "uniform"] | None = None
    """How often each condition is to be made, as a teacher remembers it (`data.prior`)."""


class PairsTask(_Hashed):
    """What decides a pair set: whose samples, by which solver, from which seed."""

    kind: Literal["pairs"] = "pairs"
    seed: int
    teacher: str
    num_pairs: int
    shard_size: int
    prior: tuple[float, ...]
    solver: dict[str, Any] | None = None
    """Method, steps and noise range of the teacher's ODE; None where one-step students answer instead."""
    students: tuple[str, ...] = ()
    """Hashes of those students' tasks, in order of their parts."""
    partition: dict[str, Any] | None = None
    """Theirs."""


class Resources(Section):
    """Where and how fast a job runs; decides nothing about its result."""

    device: str = "cpu"
    threads: int = 1
    """CPU threads; 0 takes all cores, and so the machine for itself."""
    checkpoint_every: int = 50
    num_micro_batches: int = 1


class Job(Section):
    """A task to be done in a folder of its own, named after it. `needs` are the jobs whose results it reads, by use."""

    name: Name
    task: Annotated[TrainTask | PairsTask, Field(discriminator="kind")]
    needs: dict[str, Name] = Field(default={})
    """Use (`pairs`, `student-0`...) to the key of another job, which lies beside this one."""
    teacher: str | None = None
    """Where the teacher lies: `packaged:NAME` or a path."""
    guidance: float | None = None
    """How strongly that teacher is guided; None as it says itself."""
    start: str | None = None
    """Where the start lies, if it is not the teacher."""
    data: DataSection | None = None
    """Where the images lie and how they are read, for a stage that sees any."""
    resources: Resources = Resources()

    @property
    def key(self) -> str:
        """The name of the job's folder, and of the job within a plan: another task is another key."""
        return f"{self.name}-{self.task.hash[:8]}"

    @property
    def training(self) -> TrainTask:
        """The task, of a job that is known to train."""
        if not isinstance(self.task, TrainTask):
            raise TypeError(f"{self.name} makes pairs and trains nothing")
        return self.task

    @property
    def num_steps(self) -> int:
        """What its progress counts: updates of all stages, or pairs."""
        if isinstance(self.task, PairsTask):
            return self.task.num_pairs
        return sum(section_of(stage.name).model_validate(stage.settings).num_steps for stage in self.task.stages)

    def save(self, folder: Path) -> None:
        write_json(folder / JOB, {"schema": SCHEMA, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Raises RunError when `folder` holds no job of this version."""
        path = folder / JOB
        job = read_model(path, cls, _JOB_KIND)
        job._check(path)
        return job

    @classmethod
    def find(cls, folder: Path) -> Job | None:
        """The job in `folder`, which whoever plans can write anew; None where there is none, or a broken one."""
        try:
            return cls.load(folder) if os.path.lexists(folder / JOB) else None
        except MsdError as error:
            set_aside(folder / JOB, error)
            return None

    def _check(self, path: Path) -> None:
        """Check what the task that was read from `path` holds as plain values. Raises RunError."""
        task, sections = self.task, list[tuple[type[Section], dict[str, Any] | None]]()
        try:
            given = task.partition
            partition = None if given is None else Partition.from_json(given, source="its partition")
            if isinstance(task, PairsTask):
                sections.append((SolverSection, task.solver))
            else:
                sections += [(section_of(stage.name), stage.settings) for stage in task.stages]
                sections.append((NetworkSection, task.network))
                if partition and not 0 <= (task.part or 0) < partition.num_parts:
                    raise RunError(f"it has no part {task.part}; it has {partition.num_parts}.")
        except MsdError as error:
            raise RunError(f"{path} is not {_JOB_KIND.what} ({clause(error)}); {_JOB_KIND.remedy}.") from error
        for section, values in sections:
            if values is not None:
                validated(values, section, replace(_JOB_KIND, schema=None), source=str(path))


_JOB_KIND = Kind("a job", AGAIN, schema=SCHEMA, outdated="make it again in another --out")


def check_content(what: str, where: str | None, found: str, planned: str | None) -> None:
    """What was planned with is what is read: a folder may be replaced in between. Raises WeightsError."""
    if found != planned:
        raise WeightsError(
            f"the {what} {where} is another one ({found[:12]}) than this job was planned with ({str(planned)[:12]}); "
            "run the command again, so that it plans anew."
        )


def result_folder(folder: Path) -> Path:
    """Where the job in `folder` leaves its result."""
    return folder / "result"


def stage_folder(folder: Path, index: int, stage: str) -> Path:
    """Where the training job in `folder` keeps its `index`-th stage: records, checkpoints, and what it handed on."""
    return folder / "stages" / f"{index}-{stage}"


START, PAIRS = "start", "pairs"
"""The uses under which a job needs those that make what its student starts from and the pairs it learns from."""


def student_folder(folder: Path) -> Path:
    """Where the job in `folder` leaves its student."""
    return result_folder(folder) / STUDENT


def student_use(part: int) -> str:
    """The use under which a job needs the student of a part."""
    return f"{STUDENT}-{part}"


RESULT_KIND = Kind("a job's result", AGAIN, schema=SCHEMA)


class Result(Notes):
    """What `result.json` says: whose result it is, every file with its checksum, and what the work notes of itself."""

    task: str
    files: dict[RelativePath, Sha256]


def seal_result(result: Path, task_hash: str, **facts: Any) -> None:
    """Write `result.json`. The last thing that is written."""
    paths = [path for path in sorted(result.rglob("*")) if path.is_file() and not path.name.startswith(RESULT)]
    files = {path.relative_to(result).as_posix(): sha256_file(path) for path in paths}
    write_json(result / RESULT, {"schema": SCHEMA, "task": task_hash, "files": files, **facts})


def read_result(folder: Path) -> dict[str, Any] | None:
    """What `seal_result` wrote for the job in `folder`; None while there is nothing, or nothing of this version.

    A broken one proves nothing: it is set aside, and the work counts as not done.
    """
    path = result_folder(folder) / RESULT
    if not os.path.lexists(path):
        return None
    try:
        value = read_json(path, RESULT_KIND)
        if isinstance(value, dict) and type(value.get("schema")) is int and value["schema"] != SCHEMA:
            return None
        validated(value, Result, RESULT_KIND, source=str(path))
    except RunError as error:
        set_aside(path, error)
        return None
    return value


def is_done(job: Job, folder: Path) -> bool:
    """Whether the job's folder holds a whole result of exactly its task: hash by hash, not by what a status says."""
    value, result = read_result(folder), result_folder(folder)
    if value is None or value["task"] != job.task.hash:
        return False
    return all(has_sha256(inside(result, name), checksum) for name, checksum in value["files"].items())


def tidy(folder: Path) -> None:
    """Remove the checkpoints and the owner of a finished job, which a kill between its result and its end leaves behind."""
    remove_gone(folder)
    for checkpoints in folder.glob(f"stages/*/{CHECKPOINTS}"):
        if inside(folder, checkpoints.relative_to(folder).as_posix()):
            remove_checkpoints(checkpoints)


def job_seed(recipe_seed: int, part: int) -> int:
    """A seed of its own for each part's student, the same on every machine and in every row."""
    return int(sha256_json([recipe_seed, "part", part])[:12], 16)


@dataclass
class Status:
    """What a job last said about itself; on disk as `status.json`."""

    state: State = "waiting"
    step: int = 0
    num_steps: int = 0
    stage: str = ""
    seconds: float = 0.0
    """Working time so far, over all invocations."""
    steps_per_second: float = 0.0
    images_per_second: float = 0.0
    """Images of the batches of its updates, or pairs that it made; like the speed, since its process began."""
    losses: dict[str, Measured] = field(default_factory=dict)
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    """What its processes warned of, each sentence once, over all invocations."""
    started: float = 0.0
    """Unix time at which the present (or last) process began to work."""
    updated: float = 0.0

    def write(self, folder: Path) -> None:
        self.updated = time.time()
        write_json(folder / STATUS, asdict(self))

    @property
    def seconds_left(self) -> float | None:
        if self.state != "running" or self.steps_per_second <= 0:
            return None
        return (self.num_steps - self.step) / self.steps_per_second


def read_status(folder: Path) -> Status:
    """The job's last word (none where it is broken and set aside); a job that claims to run but whose process is gone has
    failed."""
    status = read_kept(folder / STATUS, Status, "a job's status", Status())
    if status.state == "running" and owner_of(folder) is None:
        status.state, status.error = "failed", "its process ended without a word (killed, or out of memory)"
    return status


def write_status(status: Status, folder: Path) -> bool:
    """Like `Status.write`, for the parent's book-keeping: a full or vanished disk must not keep it from its other work."""
    try:
        status.write(folder)
    except MsdError:
        return False
    return True
