"""The clock: seconds per request at several batch sizes, the router's share, and peak memory."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from msd.cohort.generate import Cohort
from msd.diffusion.solvers import Solver
from msd.errors import RunError
from msd.evaluation import memory_probe
from msd.evaluation.samplers import Sampler

LATENCY_THREADS = 1
"""CPU threads while the clock runs, the same for every row: more only add waiting to requests of a few images."""
SECONDS_A_CELL = 1.5
"""Slow requests are repeated until about this long has been spent, and at least twice."""


def machine(device: str = "cpu") -> str:
    """What a time was taken on, in words: system, processor and cores, and the GPU where it is one's work."""
    cores = os.cpu_count() or 1
    words = f"{platform.system()} {platform.machine()}, {_processor()}, {cores} core{'' if cores == 1 else 's'}"
    if torch.device(device).type == "cuda":
        words += f", {torch.cuda.get_device_name(device)}"
    return words


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


@contextmanager
def _latency_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(LATENCY_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_latency_threads()
def measure_latency(
    sampler: Sampler,
    noise_shape: tuple[int, ...],
    num_conditions: int,
    batches: tuple[int, ...],
    repeats: int,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Median milliseconds of one request per batch size, all of one class: a request goes to one student.

    An unmeasured request comes first. One thread on CPU (LATENCY_THREADS).
    """
    generator = torch.Generator().manual_seed(0)
    result = {}
    for batch in batches:
        noise = torch.randn(batch, *noise_shape, generator=generator)
        labels = torch.full((batch,), num_conditions - 1)
        durations: list[float] = []
        for index in range(repeats + 1):
            begin = time.perf_counter()
            sampler.generate(noise, labels, range(batch))
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index >= 1:
                durations.append(time.perf_counter() - begin)
            if sum(durations) > SECONDS_A_CELL and len(durations) >= 2:
                break
        result[str(batch)] = round(statistics.median(durations) * 1000, 4)
        on_batch()
    return result


@_latency_threads()
def measure_routing(cohort: Cohort, batch: int = 16, repeats: int = 500) -> float:
    """Median milliseconds to find the students of a batch of labels."""
    labels = torch.arange(batch) % cohort.partition.num_conditions
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        cohort.route(labels)
        durations.append(time.perf_counter() - begin)
    return round(statistics.median(durations) * 1000, 5)


def measure_peak_memory(folder: Path, solver: Solver | None, batch: int, threads: int) -> float | None:
    """MiB by which a fresh process grows while it loads the denoiser in `folder` and samples one batch, by `solver` or,
    without one, in a student's one step. None where /proc is missing (not Linux). Raises RunError when the probe fails.
    """
    if not Path("/proc/self/statm").exists():
        return None
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
    word = solver.name if solver else memory_probe.ONE_STEP
    command = [sys.executable, "-m", memory_probe.__name__, str(folder), word, str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        raise RunError(f"peak memory cannot be measured ({reason}); free some memory, and run the same command again.")
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value["mib"]
