"""The report's tables of rows: which columns there are, how a cell is written, and which value of a column is the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msd.evaluation.pictures import number
from msd.evaluation.results import Row, batch_sizes, description, latencies, other_metrics, ratio
from msd.recipe import section_of

PER_REQUEST = "num_parameters_per_request"


@dataclass(frozen=True)
class Column:
    group: str
    title: str
    unit: str
    value: Callable[[Row], float | None]
    show: Callable[[float | None], str] = number
    best: Callable[[Iterable[float]], float] | None = None
    """min or max where one row can be the best; among one-step rows only, since the teacher pays for its quality."""


def table(rows: Mapping[str, Row], main: str, metric: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """How good the rows are, and what a request costs: see `_filled`."""
    return _filled(_columns(rows, metric), rows, main, colours)


def making(rows: Mapping[str, Row], main: str, reference: Row, colours: Mapping[str, str]) -> dict[str, Any]:
    """What the rows of students are and what they took: as `table`, each line with its `history` in words."""
    students = {name: row for name, row in rows.items() if row["kind"] == "students"}
    found = _filled(_making_columns(students, reference), students, main, colours)
    for line in found["lines"]:
        line["history"] = history(students[line["name"]])
    return found


def history(row: Row, *, until_distilled: bool = False) -> str:
    """What a row's first student began as and went through: "slices of the teacher \u2192 TSM 600 \u2192 DM 250".

    `until_distilled` leaves out its own stages but those that only prepare a start.
    """
    stages = row.get("stages") or ()
    if until_distilled:
        stages = [one for one in stages if not one.get("own", True) or section_of(one["stage"]).prepares]
    words = [f"{stage['stage'].upper()}\u00a0{stage['num_updates']:,}" for stage in stages]
    before = ", ".join(word for word, stage in zip(words, stages, strict=True) if not stage.get("own", True))
    own = [word for word, stage in zip(words, stages, strict=True) if stage.get("own", True)]
    began = (row.get("lineage") or "") + (f" ({before})" if before else "")
    return " \u2192 ".join([*([began] if began else []), *own])


def size_share(row: Row, reference: Row) -> float | None:
    """Parameters of the network that serves a request, over the reference's."""
    return ratio(row.get(PER_REQUEST), reference.get(PER_REQUEST))


def _filled(wanted: Iterable[Column], rows: Mapping[str, Row], main: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """Groups (title -> width), columns and lines of a table; a column without any value is left out."""
    columns = [column for column in wanted if any(column.value(row) is not None for row in rows.values())]
    bests = [_best(column, rows) for column in columns]
    groups: dict[str, int] = {}
    for column in columns:
        groups[column.group] = groups.get(column.group, 0) + 1
    lines = []
    for name, row in rows.items():
        cells = [
            {"text": column.show(value := column.value(row)), "best": value is not None and value == best}
            for column, best in zip(columns, bests, strict=True)
        ]
        lines.append({"name": name, "note": description(row), "colour": colours[name], "main": name == main, "cells": cells})
    return {"groups": groups, "columns": columns, "lines": lines}


def _columns(rows: Mapping[str, Row], metric: str) -> list[Column]:
    quality, cost, size = "quality", "cost of a request", _unit(rows, PER_REQUEST)
    columns = [
        Column(quality, f"{metric}\u00a0↓", "", _field("frechet_distance"), number, min),
        *(Column(quality, f"{name}\u00a0↓", "", _other(name), number, min) for name in other_metrics(rows)),
        Column(quality, "KID\u00a0↓", "\u00d7 10³", _field("kid", 1000), number, min),
        Column(quality, "precision\u00a0↑", "", _field("precision"), lambda value: number(value, 3), max),
        Column(quality, "recall\u00a0↑", "", _field("recall"), lambda value: number(value, 3), max),
        Column(quality, "label acc.\u00a0↑", "%", _field("label_accuracy", 100), lambda value: number(value, 1), max),
        Column(quality, "samples", "", _field("num_samples"), _whole),
        Column(cost, "network evals", "", _field("num_function_evaluations"), _whole),
        *(Column(cost, f"batch {size}", "ms", _latency(size)) for size in batch_sizes(rows)),
        Column(cost, "param\u00adeters", f"\u00d7 {size.power}", _field(PER_REQUEST, 1 / size.size), size.show),
        Column(cost, "peak memory", "MiB", _field("peak_memory_mib")),
    ]
    # One number of samples for all rows is said once, above the table.
    same_samples = len({row.get("num_samples") for row in rows.values()}) <= 1
    return [column for column in columns if not (same_samples and column.title == "samples")]


def _making_columns(rows: Mapping[str, Row], reference: Row) -> list[Column]:
    each, training, disk = "each student", "training, all students", "on disk, all students"
    size, flops, whole = (_unit(rows, name) for name in (PER_REQUEST, "training_flops", "cohort_parameters"))
    columns = [
        Column(each, "param\u00adeters", f"\u00d7 {size.power}", _field(PER_REQUEST, 1 / size.size), size.show),
        Column(each, "of the teacher\u2019s", "%", lambda row: _times(size_share(row, reference), 100), _whole),
        Column(each, "start, one step", "FD", lambda row: (row.get("start_quality") or {}).get("frechet_distance")),
        Column(training, "updates", "", _field("total_updates"), _whole),
        Column(training, "images", "\u00d7 10³", _field("total_images", 1e-3)),
        Column(training, "compute", f"{flops.prefix}FLOP", _field("training_flops", 1 / flops.size)),
        Column(training, "time", "s", _field("training_seconds"), _whole),
        Column(
            disk,
            "param\u00adeters",
            f"\u00d7 {whole.power}",
            _field("cohort_parameters", 1 / whole.size),
            whole.show,
        ),
        Column(disk, "size", "MiB", _field("cohort_bytes", 1 / 2**20)),
    ]
    # The same batch everywhere, in every stage: the images tell nothing that the updates do not.
    same_batch = len(set().union(*(_batches(row) for row in rows.values()))) <= 1
    return [column for column in columns if not (same_batch and column.title == "images")]


def _times(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


@dataclass(frozen=True)
class _Unit:
    """In what large numbers are counted, so that the largest of a column has at most four digits before its point."""

    size: float
    prefix: str
    power: str

    def show(self, value: float | None) -> str:
        return number(value, 0) if self == UNITS[0] else number(value)


UNITS = (
    _Unit(1e3, "k", "10³"),
    _Unit(1e6, "M", "10⁶"),
    _Unit(1e9, "G", "10⁹"),
    _Unit(1e12, "T", "10¹²"),
    _Unit(1e15, "P", "10¹⁵"),
)


def _unit(rows: Mapping[str, Row], field: str) -> _Unit:
    most = max((row.get(field) or 0 for row in rows.values()), default=0)
    return next((unit for unit in UNITS if most < 1e4 * unit.size), UNITS[-1])


def _batches(row: Row) -> set[int | None]:
    return {row.get("batch_size"), *(stage["batch_size"] for stage in row.get("stages") or ())}


def _best(column: Column, rows: Mapping[str, Row]) -> float | None:
    one_step = [row for row in rows.values() if row.get("num_function_evaluations") == 1]
    values = [value for row in one_step if (value := column.value(row)) is not None]
    return column.best(values) if column.best and len(set(values)) > 1 else None


def _field(name: str, scale: float = 1.0) -> Callable[[Row], float | None]:
    return lambda row: None if row.get(name) is None else row[name] * scale


def _other(metric: str) -> Callable[[Row], float | None]:
    return lambda row: (row.get("others") or {}).get(metric)


def _latency(size: str) -> Callable[[Row], float | None]:
    return lambda row: latencies(row).get(size)


def _whole(value: float | None) -> str:
    return number(value, 0)
