"""Runs a graph of jobs on this machine: a process each, as many at a time as fit. No torch in this process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msd.checks import available_memory
from msd.errors import Interrupted, StudentFailed
from msd.fleet.jobs import LOG, STOPPED, Job, Status, is_done, read_result, read_status, tidy, write_status
from msd.fleet.workers import LAUNCHER, Worker
from msd.owner import owner_of, refusal

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0
"""How long a worker may take to save its state before it is killed."""
WORKER_BYTES = 800 * 2**20
"""Interpreter, torch and diffusers of one worker; networks come on top."""
COPIES = 10
"""Teacher, student, critic, average, and two Adam moments and a gradient for the two that are trained."""

KILLED = "its process was killed, as the system does when memory runs out; try fewer at once (--set fleet.max_parallel=1)"
ENDED = "its process ended with code"

OnChange = Callable[[dict[str, Status]], None]


def num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_fitting(weights_bytes: int, threads: int, device: str) -> int:
    """How many workers fit: by cores, by memory available, and one a GPU process on CUDA."""
    if device.startswith("cuda"):
        return 1
    by_cores = max(1, num_cores() // threads)
    available = available_memory()
    if available is None:
        return by_cores
    return max(1, min(by_cores, available // (WORKER_BYTES + weights_bytes * COPIES)))


def run_jobs(
    jobs: Sequence[Job], folder: Path, max_parallel: int, on_change: OnChange = lambda statuses: None
) -> dict[str, str]:
    """Run the unfinished of `jobs`, each in its folder below `folder`, in the order given but never before what it needs.

    A job that fails stops only those that need it. `on_change` gets every job's status by name a few times a second. Raises
    StudentFailed naming those that failed, Interrupted after Ctrl-C, when all workers have saved their state, RunError when
    another process is at one of them.
    """
    return _Runner(jobs, folder, max_parallel, on_change).run()


class _Runner:
    def __init__(self, jobs: Sequence[Job], folder: Path, max_parallel: int, on_change: OnChange):
        self._jobs, self._folder, self._on_change = list(jobs), folder, on_change
        # Jobs that want the whole machine count as all of the processes that fit.
        self._room = max_parallel
        self._done = {job.key for job in jobs if is_done(job, folder / job.key)}
        known = {job.key for job in jobs}
        # What a job needs may have been made earlier and not be among the jobs at hand.
        self._done |= {
            need for job in jobs for need in job.needs.values() if need not in known and read_result(folder / need)
        }
        self._waiting = [job for job in jobs if job.key not in self._done]
        self._running: dict[str, tuple[Job, Worker]] = {}
        self._failed: dict[str, str] = {}

    def run(self) -> dict[str, str]:
        self._refuse_foreign()
        for job in self._jobs:
            if job.key in self._done:
                self._close(job)
        for job in self._waiting:
            status = read_status(self._place(job))
            status.state, status.num_steps, status.error = "waiting", job.num_steps, ""
            self._place(job).mkdir(parents=True, exist_ok=True)
            status.write(self._place(job))
        try:
            while self._waiting or self._running:
                self._start_ready()
                self._report()
                time.sleep(POLL_SECONDS)
                self._collect()
        except BaseException as error:
            self._stop_all()
            if isinstance(error, Exception):
                raise
            raise Interrupted("stopped; every student is saved, and the same command again goes on from there.") from None
        self._report()
        if self._failed:
            reasons = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in self._failed.items())
            raise StudentFailed(
                f"{len(self._failed)} of {len(self._jobs)} jobs failed ({reasons}); the same command again retries them."
            )
        return {job.name: job.key for job in self._jobs}

    def _close(self, job: Job) -> None:
        """Set the books of a finished job right, whose process may have been killed right after it wrote its result."""
        tidy(self._place(job))
        if Job.find(self._place(job)) is None:
            job.save(self._place(job))
        status = read_status(self._place(job))
        if status.state != "done":
            status.state, status.step, status.num_steps, status.error = "done", job.num_steps, job.num_steps, ""
            write_status(status, self._place(job))

    def _place(self, job: Job) -> Path:
        return self._folder / job.key

    def _report(self) -> None:
        self._on_change({job.name: self._seen(job) for job in self._jobs})

    def _seen(self, job: Job) -> Status:
        status = read_status(self._place(job))
        if status.state == "failed" and job.key in self._running:
            status.state, status.error = "running", ""  # why it failed is known once its process is collected
        return status

    def _refuse_foreign(self) -> None:
        for job in self._waiting:
            if (owner := owner_of(self._place(job))) is not None:
                raise refusal(self._place(job), owner)

    def _width(self, job: Job) -> int:
        return self._room if job.resources.threads == 0 else 1

    def _start_ready(self) -> None:
        for job in list(self._waiting):
            used = sum(self._width(running) for running, _ in self._running.values())
            if used and used + self._width(job) > self._room:
                continue
            if all(need in self._done for need in job.needs.values()):
                self._waiting.remove(job)
                self._running[job.key] = (job, _start(job, self._place(job)))

    def _collect(self) -> None:
        for key, (job, worker) in list(self._running.items()):
            if (code := worker.poll()) is None:
                continue
            del self._running[key]
            if code == 0:
                self._done.add(key)
            else:
                self._failed[job.name] = _reason(self._place(job), worker)
                self._give_up_on(job)

    def _give_up_on(self, failed: Job) -> None:
        """What needs a failed job cannot be done now; what does not, goes on."""
        for job in [job for job in self._waiting if failed.key in job.needs.values()]:
            self._waiting.remove(job)
            self._failed[job.name] = f"it needs {failed.name}"
            status = read_status(self._place(job))
            status.state, status.error = "failed", f"it needs {failed.name}, which failed"
            write_status(status, self._place(job))
            self._give_up_on(job)

    def _stop_all(self) -> None:
        for _, worker in self._running.values():
            worker.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for job, worker in self._running.values():
            if worker.wait(max(0.1, deadline - time.monotonic())) is None:
                worker.kill()
                worker.wait(STOP_SECONDS)
            status = read_status(self._place(job))
            if status.state == "running":
                status.state = "stopped"
            if status.state == "failed" and worker.code in (0, STOPPED, -signal.SIGTERM):
                status.state, status.error = "stopped", ""
            write_status(status, self._place(job))


def _start(job: Job, place: Path) -> Worker:
    job.save(place)
    threads = job.resources.threads or num_cores()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return LAUNCHER.start(place, environment, fork=job.resources.device == "cpu")


def _reason(place: Path, worker: Worker) -> str:
    if (owner := owner_of(place)) is not None:
        return str(refusal(place, owner))
    status = read_status(place)
    if worker.code == STOPPED:
        return "stopped by a signal"
    code = worker.code or 0
    # One that a signal ended said nothing itself, so its status is what the last reader made of a vanished process.
    if worker.words or code < 0 or status.state != "failed":
        status.state = "failed"
        status.error = worker.words or _ending(code, place)
        write_status(status, place)
    return status.error


def _ending(code: int, place: Path) -> str:
    """What is known of a process that ended with `code`, a signal's number below 0, and left no word."""
    if code == -signal.SIGKILL:
        return KILLED
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name} (where, if a library crashed: {place / LOG})"
    return f"{ENDED} {code} (see {place / LOG})"
