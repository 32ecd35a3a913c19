"""What a worker tells while it works, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msd.fleet.jobs import Status, read_status

REPORT_EVERY = 0.5
"""Seconds between two writings of the status."""


class StopRequested(Exception):
    """Raised between two steps after a signal, once everything is saved."""


class Progress:
    """Keeps `status.json` fresh: called with the number of finished steps of the job and the newest losses.

    `stop` fills up with the signals that ask the worker to stop. Only the process that `writes` touches the file, and only
    as long as `check` does not raise.
    """

    def __init__(
        self, folder: Path, num_steps: int, stop: list[int], check: Callable[[], None] = lambda: None, *, writes: bool = True
    ):
        self.stop = stop
        self._check = check
        self._folder, self._writes = folder, writes
        before = read_status(folder)
        self._status = Status(state="running", num_steps=num_steps, seconds=before.seconds, warnings=before.warnings)
        self._status.started = time.time()
        self._base, self._begin, self._reported = self._status.seconds, time.perf_counter(), 0.0
        self._taken, self._images, self._batch_size = 0, 0, 1

    def begin(self, step: int, stage: str = "", batch_size: int = 1) -> None:
        """A stage, each of whose steps is of `batch_size` images, begins, or goes on, after `step` steps of the job."""
        self._status.step, self._status.stage, self._batch_size = step, stage, batch_size
        self._write()

    def skip(self, step: int) -> None:
        """Steps up to `step` of the job were found done: they say nothing of its speed."""
        self._status.step = step

    def __call__(self, step: int, losses: dict[str, float] | None = None) -> None:
        now, status = time.perf_counter(), self._status
        self._taken += step - status.step
        self._images += (step - status.step) * self._batch_size
        elapsed = max(now - self._begin, 1e-9)
        status.step, status.seconds = step, round(self._base + elapsed, 2)
        status.steps_per_second = round(self._taken / elapsed, 3)
        status.images_per_second = round(self._images / elapsed, 3)
        if losses:
            status.losses = {name: float(f"{value:.4g}") for name, value in losses.items() if "gradient" not in name}
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self._write()

    def warn(self, sentence: str) -> None:
        """Pass a warning on, at once, so that it is known before any checkpoint says that it was given; a resumed training
        that warns of the same again says nothing new."""
        if sentence not in self._status.warnings:
            self._status.warnings.append(sentence)
            self._write()

    def done(self) -> None:
        self._status.state, self._status.step = "done", self._status.num_steps
        self._write()

    def _write(self) -> None:
        if self._writes:
            self._check()
            self._status.write(self._folder)
