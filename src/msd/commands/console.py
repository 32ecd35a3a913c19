"""Talking to the user: tables and progress on standard error, results on standard output (as JSON with --json)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from msd.conditions.partition import Partition
from msd.evaluation.results import batch_sizes, description, equality, headline, latencies, named_row
from msd.fleet.jobs import Job, PairsTask, Status

STATE_STYLES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}


@dataclass(frozen=True)
class Output:
    """Where a command's words go. With `json_only` standard output carries one JSON value and nothing else."""

    json_only: bool = False

    @property
    def console(self) -> Console:
        return _console(to_stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text)

    def show(self, table: Table) -> None:
        """A result for people; silent with --json, where the value itself is printed."""
        if not self.json_only:
            _console().print(table)

    def result(self, value: Any, text: str | None = None) -> None:
        """A command's outcome: `value` with --json, else `text`."""
        if self.json_only:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        elif text:
            _console().print(text, soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar with time left; yields `advance(number)`."""
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda number: bar.advance(task, number)

    @contextmanager
    def live_jobs(self, describe: Mapping[str, str]) -> Iterator[Callable[[dict[str, Status]], None]]:
        """A live table of jobs; on a pipe or in a log, a line whenever a job changes state instead."""
        console = self.console
        if not console.is_terminal:
            seen: dict[str, str] = {}

            def log_changes(statuses: dict[str, Status]) -> None:
                for name, status in statuses.items():
                    if seen.get(name) != status.state:
                        seen[name] = status.state
                        took = f" after {status.seconds:.0f} s" if status.state in ("done", "stopped") else ""
                        error = f" - {status.error}" if status.error else ""
                        console.print(f"{name}: {status.state}{took}{error}", soft_wrap=True)

            yield log_changes
            return
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda statuses: live.update(job_table(statuses, describe))


def _console(to_stderr: bool = False) -> Console:
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = 140  # a log or a pipe has no width of its own; 80 would fold every table
    return console


def job_table(statuses: Mapping[str, Status], describe: Mapping[str, str]) -> Table:
    """One line a job: state, progress, speed, losses, time left."""
    table = Table(title="jobs", title_justify="left")
    for heading in ("job", "conditions", "stage", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("done", "per second", "losses", "time", "left"):
        table.add_column(heading, justify="right")
    for name, status in statuses.items():
        left = status.seconds_left
        table.add_row(
            name,
            describe.get(name, ""),
            status.stage,
            f"[{STATE_STYLES[status.state]}]{status.state}[/]",
            f"{status.step} / {status.num_steps}",
            f"{status.steps_per_second:.1f}" if status.state == "running" else "",
            ", ".join(
                f"{name.removesuffix('/loss')} {value:.3g}" for name, value in status.losses.items() if "/loss" in name
            ),
            f"{status.seconds:.0f} s",
            f"{left:.0f} s" if left is not None else "",
        )
    errors = [f"{name}: {status.error}" for name, status in statuses.items() if status.error]
    table.caption = "\n".join(errors) or None
    table.caption_style, table.caption_justify = "red", "left"
    return table


ROW_COLUMNS = ("FD", "KID", "prec.", "recall", "acc. %", "NFE")


def metrics_table(metrics: Mapping[str, Any], title: str) -> Table:
    """The rows of metrics.json, in its order, the main one in bold; under each name what it is and what it holds equal."""
    rows: Mapping[str, Mapping[str, Any]] = metrics["rows"]
    sizes = batch_sizes(rows)
    table = Table(title=title, title_justify="left")
    table.add_column("sampler", overflow="fold")
    for heading in (*ROW_COLUMNS, *(f"ms \u00d7{size}" for size in sizes)):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        timed = latencies(row)
        table.add_row(
            Text.assemble(name, "\n", (description(row), "dim not bold")),
            f"{row['frechet_distance']:.2f}",
            f"{row['kid']:.4f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            f"{row['label_accuracy'] * 100:.1f}",
            str(row["num_function_evaluations"]),
            *(f"{timed[size]:.2f}" if size in timed else "" for size in sizes),
            style="bold" if name == metrics["main"] else None,
        )
    return table


def show_metrics(metrics: Mapping[str, Any], output: Output) -> None:
    """The table, the floor, the time, and the ratios of the main row to its reference and to every baseline."""
    head, main = headline(metrics), named_row(metrics, "main")
    clock = f"latency on {metrics['device']} with {metrics['latency_threads']} CPU thread"
    clock += "" if metrics["latency_threads"] == 1 else "s"
    output.show(metrics_table(metrics, f"{main['provenance']['metric']} on {main['num_samples']} samples; {clock}"))
    floors = ", ".join(f"{value:.2f} at {size}" for size, value in metrics["floor"].items())
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
    for size, speedup in head["speedups"].items():
        output.say(f"speed of {head['main']} over {head['reference']}, batch {size}: {speedup:.3g}")
    if head["label_accuracy"] is not None:
        output.say(f"label accuracy of {head['main']}: {head['label_accuracy']:.3g}")


def partition_table(report: Mapping[str, Any]) -> Table:
    table = Table(title=f"partition {report['hash'][:12]} ({report['method']})", title_justify="left")
    for heading in ("part", "conditions", "size", "prior", "coherence"):
        table.add_column(heading, justify="left" if heading == "conditions" else "right")
    for row in report["parts"]:
        table.add_row(
            str(row["part"]),
            condition_list(row["conditions"]),
            str(row["size"]),
            f"{row['prior']:.4f}",
            "" if row["coherence"] is None else f"{row['coherence']:+.3f}",
        )
    return table


def describe(job: Job) -> str:
    """The conditions that a job works for, in a few words."""
    if isinstance(job.task, PairsTask) or job.task.partition is None:
        return ""
    return condition_list(list(Partition.from_json(job.task.partition, source=job.name).parts[job.task.part or 0]))


def condition_list(conditions: list[int]) -> str:
    """Class numbers with runs shortened: [0, 1, 2, 7] -> "0-2, 7"."""
    pieces: list[list[int]] = []
    for condition in sorted(conditions):
        if pieces and condition == pieces[-1][-1] + 1:
            pieces[-1].append(condition)
        else:
            pieces.append([condition])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in pieces)
