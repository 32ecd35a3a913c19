"""The process that trains one student: `python -m msd.fleet.worker JOB_FOLDER`. Started by `fleet.local`, not by people."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msd.errors import MsdError
from msd.files import replacing_folder
from msd.fleet.jobs import STOPPED, Job, State, Status, read_status
from msd.training.interrupts import stop_requests

REPORT_EVERY = 0.5


class _StopRequested(Exception):
    """Raised between two steps after a signal."""


@dataclass
class _Reporter:
    """Callback: keeps `status.json` fresh, saves checkpoints, and ends the training when a signal has come."""

    job: Job
    status: Status
    save: Callable[[int], None]
    stop: list[int]

    def __post_init__(self) -> None:
        self._begin, self._first = time.perf_counter(), self.status.step
        self._base, self._reported = self.status.seconds, 0.0

    def __call__(self, step: int, record: dict[str, float]) -> None:
        now = time.perf_counter()
        status = self.status
        status.step = step
        status.seconds = round(self._base + now - self._begin, 2)
        status.steps_per_second = round((step - self._first) / (now - self._begin), 3)
        status.losses = {name: float(f"{value:.4g}") for name, value in record.items() if "gradient" not in name}
        last = step == status.num_steps
        if not last and (self.stop or step % self.job.checkpoint_every == 0):
            self.save(step)
        if self.stop and not last:
            raise _StopRequested
        if last or now - self._reported >= REPORT_EVERY:
            self._reported = now
            status.write(self.job.folder)


def train(job: Job, stop: list[int]) -> None:
    """Train, or go on training, until the student is finished. Raises MsdError, or _StopRequested once state is saved."""
    from msd.conditions.partition import Partition
    from msd.data.pairs import load_pairs
    from msd.networks.folder import save_denoiser
    from msd.stages.dm import DistributionMatching
    from msd.teachers.folder import load_teacher
    from msd.training.checkpoint import Checkpoints
    from msd.training.engine import Engine
    from msd.training.loop import run_stage
    from msd.training.records import RecordFile

    engine = Engine.on(job.device, job.threads)
    teacher = load_teacher(job.teacher, engine.device)
    partition = Partition.from_json(job.partition, source=f"{job.folder / 'job.json'}")
    pairs = load_pairs(job.pairs) if job.pairs else None
    stage = DistributionMatching(job.settings, teacher.denoiser, partition, job.part, pairs, engine, job.sigma_init)
    generator = engine.generator(job.seed)
    identity = {"partition": partition.hash, "teacher": teacher.hash, "part": job.part, "stage": stage.name}
    checkpoints = Checkpoints(job.checkpoints, identity)
    records = RecordFile(job.records)

    start = checkpoints.restore(stage.roles, generator)
    records.cut(start)
    status = Status(
        state="running",
        step=start,
        num_steps=stage.num_steps,
        seconds=read_status(job.folder).seconds,
        pid=os.getpid(),
        started=time.time(),
    )
    status.write(job.folder)

    def save(step: int) -> None:
        records.flush()
        checkpoints.save(step, stage.roles, generator)

    reporter = _Reporter(job, status, save, stop)
    run_stage(stage, generator, start=start, callbacks=(records, reporter))
    records.flush()
    facts = {
        "role": "student",
        "partition_hash": partition.hash,
        "part": job.part,
        "conditions": list(partition.parts[job.part]),
        "teacher": {"source": job.teacher, "hash": teacher.hash, "licence": teacher.licence},
        "lineage": ["teacher"],
        "stages": [{"stage": stage.name, "num_updates": stage.num_steps, "seed": job.seed, "seconds": status.seconds}],
    }
    with replacing_folder(job.result) as folder:
        save_denoiser(stage.roles["student"].result(), folder, **facts)
    checkpoints.clear()
    status.state, status.step = "done", stage.num_steps
    status.write(job.folder)


def main() -> int:
    job = Job.load(Path(sys.argv[1]))
    try:
        with stop_requests() as stop:
            train(job, stop)
    except _StopRequested:
        return _finish(job, "stopped", "", STOPPED)
    except MsdError as error:
        return _finish(job, "failed", str(error), error.exit_code)
    except Exception as error:
        import traceback

        traceback.print_exc()  # goes to the job's log
        return _finish(job, "failed", f"{type(error).__name__}: {error} (see {job.log})", 1)
    return 0


def _finish(job: Job, state: State, error: str, code: int) -> int:
    status = read_status(job.folder)
    status.state, status.error = state, error
    status.write(job.folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
