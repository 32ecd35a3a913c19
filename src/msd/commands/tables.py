"""Tables for people, as wide as the terminal: where there is no room for all columns, they go in a stated order.

Numbers are never cut: names fold over lines first, then whole columns go, those of the highest `rank` first, and those of
rank 0 never. From the table of jobs go images a second, conditions, losses, stage, speed, time and time left, so that name,
state and steps done stay; from the table of rows recall, precision and the middle latencies, KID, the longest latency,
evaluations, the shortest latency and accuracy, so that name and distance stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from msd.commands.streams import one_line
from msd.conditions.names import are_numbers, quoted, unevenness
from msd.conditions.partition import Partition
from msd.evaluation.results import batch_sizes, description, latencies, other_metrics
from msd.fleet.jobs import Job, PairsTask, Status

STATE_STYLES = {"waiting": "dim", "running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}
NARROWEST = 8
"""Letters a line that a folded column keeps at least."""
NAMES_ROOM, MOST_NAMES_ROOM = 24, 72
"""Letters for the classes of a part: of a job, and of a part in its own table."""
ERROR_LENGTH = 400
"""Letters of a job's error, or warning, under the table."""


@dataclass(frozen=True)
class Column:
    """A column; `folds` if its cells may go over several lines."""

    heading: str
    justify: Literal["left", "right"] = "right"
    rank: int = 0
    folds: bool = False


def fitted(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], width: int) -> Table:
    """A table of at most `width` letters, if leaving out columns can make it so."""
    shown = list(range(len(columns)))
    while _width([columns[place] for place in shown], [[row[place] for place in shown] for row in rows]) > width:
        last = max(shown, key=lambda place: columns[place].rank)
        if columns[last].rank == 0:
            break
        shown.remove(last)
    table = Table(title=title, title_justify="left", caption_justify="left")
    for place in shown:
        column = columns[place]
        table.add_column(column.heading, justify=column.justify, no_wrap=not column.folds, overflow="fold")
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    gone = [column.heading for place, column in enumerate(columns) if place not in shown]
    table.caption = f"no room for {', '.join(gone)}" if gone else None
    return table


def with_note(table: Table, note: str | None) -> Table:
    """The table with one more sentence under it, if there is one."""
    lines = [str(table.caption)] if table.caption else []
    table.caption = "\n".join([*lines, *([one_line(note)] if note else [])]) or None
    return table


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> int:
    """Letters that the table takes at least: its lines and cells, folded ones at their narrowest."""
    total = 1
    for place, column in enumerate(columns):
        lines = [column.heading, *(line for row in rows for line in str(row[place]).splitlines())]
        longest = max(map(cell_len, lines))
        total += 3 + (min(longest, NARROWEST) if column.folds else longest)
    return total


JOB_COLUMNS = (
    Column("job", "left", folds=True),
    Column("conditions", "left", rank=6),
    Column("stage", "left", rank=4),
    Column("state", "left"),
    Column("done"),
    Column("per second", rank=3),
    Column("images/s", rank=7),
    Column("losses", rank=5),
    Column("time", rank=2),
    Column("left", rank=1),
)


def job_table(statuses: Mapping[str, Status], describe: Mapping[str, str], width: int) -> Table:
    """One line a job: state, progress, speed, losses, time left; under it the errors of those that failed, and warnings."""
    rows = []
    for name, status in statuses.items():
        left = status.seconds_left
        losses = ", ".join(f"{loss.removesuffix('/loss')} {value:.3g}" for loss, value in _losses(status).items())
        rows.append(
            (
                one_line(name),
                describe.get(name, ""),
                one_line(status.stage),
                Text(one_line(status.state), STATE_STYLES.get(status.state, "")),
                f"{status.step} / {status.num_steps}",
                f"{status.steps_per_second:.1f}" if status.state == "running" else "",
                f"{status.images_per_second:,.1f}" if status.state == "running" else "",
                one_line(losses),
                f"{status.seconds:.0f} s",
                f"{left:.0f} s" if left is not None else "",
            )
        )
    table = fitted("jobs", JOB_COLUMNS, rows, width)
    errors = [f"{name}: {status.error}" for name, status in statuses.items() if status.error]
    warnings = [sentence for name, status in statuses.items() for sentence in warnings_of(name, status)]
    said = [(errors, "red"), (warnings, "yellow")]
    lines = [Text(one_line(text)[:ERROR_LENGTH], style) for texts, style in said for text in texts]
    table.caption = Text("\n").join(lines) if lines else None
    return table


def warnings_of(name: str, status: Status) -> list[str]:
    """What the job of this name has warned of, as people are told it."""
    return [f"Warning: {name}: {sentence}" for sentence in status.warnings]


def _losses(status: Status) -> dict[str, float]:
    return {name: value for name, value in status.losses.items() if "/loss" in name}


def metrics_table(metrics: Mapping[str, Any], title: str, width: int) -> Table:
    """The rows of metrics.json, in its order, the main one in bold; under each name what it is and what it holds equal."""
    rows: Mapping[str, Mapping[str, Any]] = metrics["rows"]
    sizes, others = batch_sizes(rows), other_metrics(rows)
    columns = [
        Column("sampler", "left", folds=True),
        Column("FD"),
        *(Column(name, rank=1) for name in others),
        Column("KID", rank=5),
        Column("prec.", rank=6),
        Column("recall", rank=7),
        Column("acc. %", rank=1),
        Column("NFE", rank=3),
    ]
    for place, size in enumerate(sizes):
        columns.append(Column(f"ms \u00d7{size}", rank=2 if place == 0 else 4 if place == len(sizes) - 1 else 6))
    lines = []
    for name, row in rows.items():
        timed, style = latencies(row), "bold" if name == metrics["main"] else ""
        cells = [
            _number(row.get("frechet_distance"), 2),
            *(_number((row.get("others") or {}).get(name), 2) for name in others),
            _number(row.get("kid"), 4),
            _number(row.get("precision"), 3),
            _number(row.get("recall"), 3),
            _number(row.get("label_accuracy"), 1, 100),
            _number(row.get("num_function_evaluations"), 0),
            *(_number(timed.get(size), 2) for size in sizes),
        ]
        label = Text.assemble((one_line(name), style), "\n", (one_line(description(row)), "dim"))
        lines.append([label, *(Text(cell, style) for cell in cells)])
    return fitted(title, columns, lines, width)


def _number(value: float | None, decimals: int, scale: float = 1) -> str:
    return "" if value is None else f"{value * scale:.{decimals}f}"


PARTITION_COLUMNS = (
    Column("part"),
    Column("conditions", "left", folds=True),
    Column("size", rank=2),
    Column("prior"),
    Column("coherence", rank=1),
)


def partition_table(report: Mapping[str, Any], width: int) -> Table:
    """A line a part: its conditions, how many they are, how often it is asked, how alike they are; below, how much classes
    differ in how often they occur."""
    classes, room = report.get("classes") or (), max(NAMES_ROOM, min(width - 44, MOST_NAMES_ROOM))
    rows = [
        (
            str(row["part"]),
            class_list(row["conditions"], classes, room),
            str(row["size"]),
            f"{row['prior']:.4f}",
            "" if row["coherence"] is None else f"{row['coherence']:+.3f}",
        )
        for row in report["parts"]
    ]
    table = fitted(f"partition {report['hash'][:12]} ({report['method']})", PARTITION_COLUMNS, rows, width)
    return with_note(table, unevenness(report.get("prior") or (), classes))


def describe(job: Job, classes: Sequence[str] = ()) -> str:
    """The conditions that a job works for, in a few words; `classes` are the names of all."""
    if isinstance(job.task, PairsTask) or job.task.partition is None:
        return ""
    partition = Partition.from_json(job.task.partition, source=job.name)
    return str(class_list(partition.parts[job.task.part or 0], classes, NAMES_ROOM))


def class_list(conditions: Sequence[int], classes: Sequence[str], room: int) -> Text:
    """The names of some classes in at most `room` letters, "cat, dog, +3", one with a comma in quotes, as `--labels` takes
    it; their numbers, where those are all the names."""
    if not classes or are_numbers(classes):
        return Text(condition_list(list(conditions)))
    names, length = list[str](), 0
    for number in conditions:
        name = one_line(quoted(classes[number])) or str(number)
        left = len(conditions) - len(names) - 1
        needed = length + cell_len(name) + (len(f", +{left}") if left else 0)
        if names and needed > room:
            break
        names.append(name)
        length += cell_len(name) + 2
    if len(names) == 1 and cell_len(names[0]) > room - 6:
        names[0] = f"{set_cell_size(names[0], max(1, room - 9)).rstrip()}..."
    rest = len(conditions) - len(names)
    return Text(", ".join([*names, *([f"+{rest}"] if rest else [])]))


def condition_list(conditions: list[int]) -> str:
    """Class numbers with runs shortened: [0, 1, 2, 7] -> "0-2, 7"."""
    pieces: list[list[int]] = []
    for condition in sorted(conditions):
        if pieces and condition == pieces[-1][-1] + 1:
            pieces[-1].append(condition)
        else:
            pieces.append([condition])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in pieces)
