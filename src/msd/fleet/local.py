"""Runs jobs on this machine: a process each, as many at a time as fit, each on its own threads. No torch in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from msd.errors import Interrupted, MsdError, RunError, StudentFailed
from msd.fleet.jobs import STOPPED, Job, Status, read_status

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0
"""How long a worker may take to save its state before it is killed."""
WORKER_BYTES = 800 * 2**20
"""Interpreter, torch and diffusers of one worker; networks come on top."""


def num_fitting(num_parameters: int, threads: int, device: str) -> int:
    """How many workers fit: by cores, by memory available (Linux), and one a GPU process on CUDA."""
    if device.startswith("cuda"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_cores = max(1, cores // threads)
    # Teacher, student, critic, average, and two Adam moments and a gradient for the two that are trained; float32.
    each = WORKER_BYTES + num_parameters * 4 * 10
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return by_cores
    return max(1, min(by_cores, pages // each))


def is_done(job: Job) -> bool:
    return read_status(job.folder).state == "done" and (job.result / "denoiser.json").is_file()


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.folder.mkdir(parents=True, exist_ok=True)
    job.save()
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    with job.log.open("ab") as log:
        # Its own session: Ctrl-C reaches only the parent, which then asks each worker to save and stop.
        return subprocess.Popen(
            [sys.executable, "-m", "msd.fleet.worker", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def run_jobs(
    jobs: Sequence[Job], max_parallel: int, on_change: Callable[[dict[str, Status]], None] = lambda statuses: None
) -> None:
    """Run all unfinished jobs in order, `max_parallel` at a time; one that fails does not stop the others.

    `on_change` gets every job's status a few times a second. Raises StudentFailed naming those that failed, Interrupted
    after Ctrl-C, when all workers have saved their state, RunError when another process is training one of them.
    """
    waiting = [job for job in jobs if not is_done(job)]
    for job in waiting:
        status = read_status(job.folder)
        if status.state == "running":
            raise RunError(
                f"{job.name} is already being trained by process {status.pid}; wait for it (msd status), or end it first."
            )
        job.folder.mkdir(parents=True, exist_ok=True)
        status.state, status.num_steps, status.error = "waiting", job.settings.num_updates, ""
        status.write(job.folder)
    running: dict[str, tuple[Job, subprocess.Popen[bytes]]] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < max_parallel:
                job = waiting.pop(0)
                running[job.name] = (job, _start(job))
            time.sleep(POLL_SECONDS)
            for name, (job, process) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode != 0:
                        failed[name] = _reason(job, process.returncode)
            on_change({job.name: read_status(job.folder) for job in jobs})
    except BaseException as error:
        _stop_all(running)
        if isinstance(error, Exception):
            raise
        raise Interrupted("stopped; every student is saved, and the same command again goes on from there.") from None
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise StudentFailed(f"{len(failed)} of {len(jobs)} jobs failed ({reasons}); the same command again retries them.")


def _reason(job: Job, code: int) -> str:
    status = read_status(job.folder)
    if code == STOPPED:
        return "stopped by a signal"
    if status.state != "failed":
        status.state = "failed"
        status.error = f"its process ended with code {code} (see {job.log})"
        status.write(job.folder)
    return status.error


def _stop_all(running: dict[str, tuple[Job, subprocess.Popen[bytes]]]) -> None:
    for _, process in running.values():
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for job, process in running.values():
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        status = read_status(job.folder)
        if status.state == "running":
            status.state = "stopped"
        if status.state == "failed" and process.returncode in (0, STOPPED, -15):
            status.state, status.error = "stopped", ""
        try:
            status.write(job.folder)
        except MsdError:
            continue  # a full or vanished disk must not keep the other workers from being stopped
