"""Talking to the user: tables and progress on standard error, results on standard output (as JSON with --json).

No text is markup: names, notes, paths and errors are shown as they are, a message on one line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from msd.commands.budget import duration
from msd.commands.streams import diverted, one_line, writing
from msd.commands.tables import job_table, metrics_table, warnings_of
from msd.evaluation.protocol import counted
from msd.evaluation.results import agreements, equality, headline, named_row, remarks
from msd.files import finite
from msd.fleet.jobs import PAIRS, Status

FILE_WIDTH = 140
"""A log or a pipe has no width of its own; 80 would fold every table."""
TELL_EVERY = 60.0
"""Seconds between two lines about a running job, where there is no live table."""
ROOM_FOR_BARS = 100
"""Narrower terminals show a progress's numbers only."""


@dataclass(frozen=True)
class Output:
    """Where a command's words go. With `json_only` standard output carries one JSON value and nothing else."""

    json_only: bool = False
    _values: list[Any] = field(default_factory=list, init=False)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """While a command works; the result goes out at its end, once, and only if it succeeds."""
        if not self.json_only:
            yield
            return
        with diverted() as stdout:
            yield
        with writing(stdout):
            for value in self._values[-1:]:
                # ASCII, so that no terminal's encoding can make it anything else than JSON.
                stdout.write(json.dumps(finite(value), allow_nan=False) + "\n")

    @property
    def console(self) -> Console:
        return _console(to_stderr=True)

    @property
    def width(self) -> int:
        """Letters a line of a result has room for."""
        return _console().width

    def say(self, text: str) -> None:
        """A message, on one line however long: terminals wrap it themselves."""
        self.console.print(one_line(text), soft_wrap=True)

    def show(self, table: Table) -> None:
        """A result for people; silent with --json, where the value itself is printed."""
        if not self.json_only:
            with writing(sys.stdout):
                _console().print(table)

    def result(self, value: Any, text: str | None = None) -> None:
        """A command's outcome: `value` with --json, else `text`."""
        if self.json_only:
            self._values.append(value)
        elif text:
            with writing(sys.stdout):
                _console().print(one_line(text), soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar with speed and time left; yields `advance(number)`."""
        console = self.console
        title = one_line(title)
        columns = [TextColumn("{task.description}", markup=False), MofNCompleteColumn(), TimeRemainingColumn()]
        if console.width >= ROOM_FOR_BARS:
            columns.insert(1, BarColumn(bar_width=32))
            columns[3:] = [_Speed(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
            title = f"{title:<28}"
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda number: bar.advance(task, number)

    @contextmanager
    def live_jobs(self, describe: Mapping[str, str]) -> Iterator[Callable[[dict[str, Status]], None]]:
        """A live table of jobs; on a pipe, in a log or a dumb terminal, a line whenever a job changes state or warns of
        something instead, and now and then one of how far it is."""
        console = self.console
        if not console.is_terminal or console.is_dumb_terminal:
            seen: dict[str, str] = {}
            warned: set[str] = set()
            told: dict[str, float] = {}

            def log_changes(statuses: dict[str, Status]) -> None:
                for name, status in statuses.items():
                    for sentence in warnings_of(name, status):
                        if sentence not in warned:
                            warned.add(sentence)
                            self.say(sentence)
                    if seen.get(name) != status.state:
                        seen[name], told[name] = status.state, time.monotonic()
                        took = f" after {status.seconds:.0f} s" if status.state in ("done", "stopped") else ""
                        error = f" - {status.error}" if status.error else ""
                        self.say(f"{name}: {status.state}{took}{error}")
                    elif status.seconds_left is not None and time.monotonic() >= told[name] + TELL_EVERY:
                        told[name] = time.monotonic()
                        self.say(f"{name}: {how_far(status)}")

            yield log_changes
            return
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda statuses: live.update(job_table(statuses, describe, console.width))


class _Speed(ProgressColumn):
    """Of a bar: how many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s", "progress.data.speed")


def how_far(status: Status) -> str:
    """Of a running job: what is done, how fast, and the time left."""
    done = f"{status.step:,} of {status.num_steps:,} ({status.stage})"
    speed = f"{status.images_per_second:,.1f} {PAIRS if status.stage == PAIRS else 'images'} a second"
    return f"{done}, {speed}, {duration(status.seconds_left or 0)} left"


def _console(to_stderr: bool = False) -> Console:
    console = Console(stderr=to_stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def show_metrics(metrics: Mapping[str, Any], output: Output) -> None:
    """The table, the floor, the time, and the ratios of the main row to its reference and to every baseline."""
    head, main = headline(metrics), named_row(metrics, "main")
    clock = f"latency on {metrics['device']} with {metrics['latency_threads']} CPU thread"
    clock += "" if metrics["latency_threads"] == 1 else "s"
    title = f"{counted(main['provenance']['metric'], main['num_samples'])}; {clock}"
    output.show(metrics_table(metrics, title, output.width))
    for taken in dict.fromkeys(str((row.get("latency_taken_on") or {}).get("machine")) for row in metrics["rows"].values()):
        if taken != "None":
            output.say(f"latency taken on: {taken}")
    for sentence in remarks(metrics):
        output.say(sentence)
    if floors := ", ".join(f"{value:.2f} at {size}" for size, value in (metrics["floor"] or {}).items()):
        output.say(f"floor (real images redrawn, against themselves): {floors}")
    if head["seconds"]:
        pieces = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in head["seconds"].items())
        output.say(f"time by the clock, when it was done: {pieces}")
    if head["training_wall_seconds"] is not None:
        output.say(f"of the training, the students of {head['main']}: {head['training_wall_seconds']:.0f} s")
    for line in head["baselines"]:
        if line["ratio"] is not None:
            held = f" ({words})" if (words := equality(line)) else ""
            output.say(f"distance of {head['main']} over {line['name']}{held}: {line['ratio']:.3g}")
    if head["over_reference"] is not None:
        output.say(f"distance of {head['main']} over {head['reference']}: {head['over_reference']:.3g}")
    for sentence in agreements(metrics):
        output.say(sentence)
    for size, speedup in head["speedups"].items():
        output.say(f"speed of {head['main']} over {head['reference']}, batch {size}: {speedup:.3g}")
    if head["label_accuracy"] is not None:
        output.say(f"label accuracy of {head['main']}: {head['label_accuracy']:.3g}")
