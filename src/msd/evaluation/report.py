"""The report: one HTML file that needs no network, and metrics.json beside it, from what a run measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from msd.evaluation import pictures
from msd.evaluation.pictures import number
from msd.files import write_json, write_text

REFERENCE = "teacher-heun18"
"""The row that speed and distance are compared with: the teacher sampled well."""

ROW_ORDER = (REFERENCE, "teacher-euler4", "teacher-euler1", "single", "single-equal-total", "cohort")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ReportInputs:
    """Everything the report shows. Rows, grids and curves may be missing, e.g. where baselines are switched off."""

    metrics: dict[str, Any]
    """The content of metrics.json; `rows` maps a name to what `Bench.row` and the clock measured."""
    recipe: dict[str, Any]
    partition_report: dict[str, Any]
    """Of `Partition.report`."""
    curves: dict[str, list[dict[str, float]]]
    """Training records of each job ("student-0", "single"...), one a step."""
    grids: dict[str, Tensor]
    """Images `[num_labels * num_grid_columns, C, H, W]` of each row, a line of them per class, all from the same noise."""
    num_grid_columns: int
    timings: dict[str, float]
    """Seconds per piece of work."""
    versions: dict[str, str]


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write metrics.json and index.html, each complete or not at all; returns the latter. Raises RunError."""
    import jinja2

    template = Path(__file__).with_name("report.html.j2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name).render(_context(inputs))
    write_json(folder / "metrics.json", inputs.metrics)
    write_text(folder / "index.html", page)
    return folder / "index.html"


def headline(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """What was gained, as ratios to the cohort's distance (below 1: the cohort is better) and as speed-ups over the teacher.

    None where a row or a measurement is missing.
    """
    rows = metrics.get("rows", {})
    cohort, teacher = rows.get("cohort", {}), rows.get(REFERENCE, {})

    def distance_over(name: str) -> float | None:
        return _ratio(cohort.get("frechet_distance"), rows.get(name, {}).get("frechet_distance"))

    def speedup(batch: str) -> float | None:
        return _ratio(_latency(teacher, batch), _latency(cohort, batch))

    return {
        "fd_over_single": distance_over("single"),
        "fd_over_single_equal_total": distance_over("single-equal-total"),
        "fd_over_teacher": distance_over(REFERENCE),
        "speedup_batch_1": speedup("1"),
        "speedup_batch_256": speedup("256"),
        "label_accuracy": cohort.get("label_accuracy"),
    }


def _context(inputs: ReportInputs) -> dict[str, Any]:
    """All that the template shows; it formats nothing itself."""
    metrics, partition = inputs.metrics, inputs.partition_report
    rows: dict[str, Row] = {name: metrics["rows"][name] for name in _ordered(metrics["rows"])}
    provenances = _distinct(row["provenance"] for row in rows.values() if row.get("provenance"))
    metric = provenances[0].get("metric", "FD") if provenances else "FD"
    owners = {label: part["part"] for part in partition["parts"] for label in part["conditions"]}
    floor = metrics.get("floor") or {}
    return {
        "metrics": metrics,
        "metric": metric,
        "num_parts": partition["num_parts"],
        "num_classes": partition["num_conditions"],
        "summary": _summary(rows, partition, metric),
        "wall": _duration(metrics.get("wall_seconds")),
        "tiles": _tiles(metrics, metric),
        "heroes": _heroes(inputs, rows, owners),
        "samples": _samples(inputs, owners),
        "table": _table(rows, metric, partition["num_parts"]),
        "floors": [(f"{int(size):,}", number(value)) for size, value in floor.items()],
        "floor_row": floor.get(str(next((row.get("num_samples") for row in rows.values()), ""))),
        "number": number,
        "in_words": _in_words,
        "part_colour": pictures.part_colour,
        "per_part": pictures.part_charts(rows, partition),
        "latency": pictures.latency_charts(rows),
        "routing": [(batch, number(value)) for batch, value in (metrics.get("routing_ms") or {}).items()],
        "partition": partition,
        "curves": pictures.curve_charts(inputs.curves),
        "memorisation": {name: row["memorisation"] for name, row in rows.items() if row.get("memorisation")},
        "recipe": _yaml(inputs.recipe),
        "targets": _yaml(metrics["targets"]) if metrics.get("targets") else None,
        "timings": [(name, _duration(seconds)) for name, seconds in inputs.timings.items()],
        "versions": inputs.versions,
        "provenances": [_yaml(provenance) for provenance in provenances],
    }


def _summary(rows: Mapping[str, Row], partition: Mapping[str, Any], metric: str) -> str:
    teacher, cohort = rows.get(REFERENCE, {}), rows.get("cohort", {})
    evaluations = teacher.get("num_function_evaluations")
    cost = f" that needs {evaluations} network evaluations an image" if evaluations else ""
    parts, classes = partition["num_parts"], partition["num_conditions"]
    students = f"{_in_words(parts)} one-step students, one per part of the {classes} class labels"
    sentence = f"A diffusion teacher{cost} was distilled into {students}"
    speed = _ratio(_latency(teacher, "1"), _latency(cohort, "1"))
    if speed is not None:
        sentence += f": {speed:.3g} times as fast, one image at a time"
    if cohort.get("frechet_distance") is None:
        return sentence + "."
    against = [
        f"{number(rows[name]['frechet_distance'])} for {words}"
        for name, words in (
            ("single", "one student trained as long as each of them"),
            ("single-equal-total", "one student given all their updates"),
            (REFERENCE, "the teacher"),
        )
        if rows.get(name, {}).get("frechet_distance") is not None
    ]
    compared = f", against {', '.join(against)}" if against else ""
    return f"{sentence}, with an {metric} of {number(cohort['frechet_distance'])}{compared} (lower is better)."


def _tiles(metrics: Mapping[str, Any], metric: str) -> list[dict[str, str]]:
    """The headline numbers; `tone` is good, neutral or bad by the number alone, whatever one had hoped for."""
    rows, ratios = metrics["rows"], headline(metrics)
    teacher, cohort = rows.get(REFERENCE, {}), rows.get("cohort", {})
    tiles = []
    if (speed := ratios["speedup_batch_1"]) is not None:
        label, note = "the teacher's speed, one image", f"{_milliseconds(cohort)} against {_milliseconds(teacher)}"
        if (batch := ratios["speedup_batch_256"]) is not None:
            note += f"; {batch:.3g}\u00d7 at batch 256"
        tiles.append({"value": f"{speed:.3g}\u00d7", "label": label, "note": note, "tone": "good" if speed > 1 else "bad"})
    for key, name, words in (
        ("fd_over_single", "single", "of a single student, equal updates per student"),
        ("fd_over_single_equal_total", "single-equal-total", "of a single student, equal total updates"),
        ("fd_over_teacher", REFERENCE, "of the teacher"),
    ):
        if (ratio := ratios[key]) is not None:
            distances = f"{number(cohort['frechet_distance'])} against {number(rows[name]['frechet_distance'])}"
            tone = (
                "neutral" if abs(ratio - 1) < 0.02 or (name == REFERENCE and ratio > 1) else "good" if ratio < 1 else "bad"
            )
            note = distances + _difference(ratio)
            tiles.append({"value": f"{ratio:.2f}\u00d7", "label": f"the {metric} {words}", "note": note, "tone": tone})
    if (accuracy := ratios["label_accuracy"]) is not None:
        reference = teacher.get("label_accuracy")
        note = "" if reference is None else f"teacher {reference:.1%}"
        tiles.append(
            {
                "value": f"{accuracy:.1%}",
                "label": "of the cohort's images show the class asked for",
                "note": note,
                "tone": "neutral",
            }
        )
    return tiles


def _heroes(inputs: ReportInputs, rows: Mapping[str, Row], owners: Mapping[int, int]) -> list[dict[str, Any]]:
    """Teacher, one student and cohort at a glance: the first image of up to ten classes, and three numbers."""
    single = "single" if "single" in rows else "single-equal-total"
    parts = inputs.partition_report["num_parts"]
    kinds = {REFERENCE: "The teacher", single: "One student", "cohort": f"A cohort of {_in_words(parts)} students"}
    heroes = []
    for name, title in kinds.items():
        if name not in rows:
            continue
        images = []
        pixels = inputs.grids.get(name, [])
        for label, index in enumerate(range(0, len(pixels), inputs.num_grid_columns)):
            colour = pictures.part_colour(owners.get(label, 0)) if name == "cohort" else pictures.row_colour(name)
            uri = pictures.png_data_uri(pictures.grid_image(pixels[index : index + 1], 1))  # pyright: ignore[reportArgumentType]
            images.append({"uri": uri, "label": label, "colour": colour})
            if len(images) == 10:
                break
        row = rows[name]
        facts = {
            "network evaluations": number(row.get("num_function_evaluations"), 0),
            "ms an image": number(_latency(row, "1")),
            row.get("provenance", {}).get("metric", "FD"): number(row.get("frechet_distance")),
        }
        heroes.append({"name": name, "title": title, "images": images, "facts": facts, "colour": pictures.row_colour(name)})
    return heroes


def _samples(inputs: ReportInputs, owners: Mapping[int, int]) -> list[dict[str, Any]]:
    result = []
    for name in _ordered(inputs.grids):
        pixels = inputs.grids[name]
        num_lines = -(-len(pixels) // inputs.num_grid_columns)
        labels = range(num_lines) if num_lines <= 24 else ()
        result.append(
            {
                "name": name,
                "note": _evaluations(inputs.metrics["rows"].get(name, {})),
                "uri": pictures.png_data_uri(pictures.grid_image(pixels, inputs.num_grid_columns)),
                "labels": [
                    {"label": label, "colour": pictures.part_colour(owners.get(label, 0)) if name == "cohort" else None}
                    for label in labels
                ],
            }
        )
    return result


@dataclass(frozen=True)
class _Column:
    group: str
    title: str
    unit: str
    value: Callable[[Row], float | None]
    show: Callable[[float | None], str]
    best: Callable[[Iterable[float]], float] | None = None
    """min or max where one row can be the best; among one-step rows only, since the teacher pays for its quality."""


def _columns(metric: str) -> tuple[_Column, ...]:
    def field(name: str, scale: float = 1.0) -> Callable[[Row], float | None]:
        return lambda row: None if row.get(name) is None else row[name] * scale

    def batch(size: str) -> Callable[[Row], float | None]:
        return lambda row: _latency(row, size)

    def whole(value: float | None) -> str:
        return number(value, 0)

    quality, cost, training = "quality", "cost of a request", "training"
    return (
        _Column(quality, f"{metric}\u00a0↓", "", field("frechet_distance"), number, min),
        _Column(quality, "KID\u00a0↓", "\u00d7 10³", field("kid", 1000), number, min),
        _Column(quality, "precision\u00a0↑", "", field("precision"), lambda value: number(value, 3), max),
        _Column(quality, "recall\u00a0↑", "", field("recall"), lambda value: number(value, 3), max),
        _Column(quality, "label acc.\u00a0↑", "%", field("label_accuracy", 100), lambda value: number(value, 1), max),
        _Column(quality, "samples", "", field("num_samples"), whole),
        _Column(cost, "network evals", "", field("num_function_evaluations"), whole),
        _Column(cost, "batch 1", "ms", batch("1"), number),
        _Column(cost, "batch 16", "ms", batch("16"), number),
        _Column(cost, "batch 256", "ms", batch("256"), number),
        _Column(cost, "param\u00adeters", "\u00d7 10³", field("num_parameters_per_request", 1e-3), whole),
        _Column(cost, "peak memory", "MiB", field("peak_memory_mib"), number),
        _Column(training, "updates", "", field("total_updates"), whole),
        _Column(training, "time", "s", field("training_seconds"), whole),
    )


def _table(rows: Mapping[str, Row], metric: str, num_parts: int) -> dict[str, Any]:
    words = {
        REFERENCE: "18 Heun steps",
        "teacher-euler4": "4 Euler steps",
        "teacher-euler1": "1 Euler step",
        "single": "one student, equal updates",
        "single-equal-total": "one student, equal total updates",
        "cohort": f"{_in_words(num_parts)} students, routed",
    }
    columns = [column for column in _columns(metric) if any(column.value(row) is not None for row in rows.values())]
    one_step = [row for row in rows.values() if row.get("num_function_evaluations") == 1]
    bests = []
    for column in columns:
        values = [value for row in one_step if (value := column.value(row)) is not None]
        bests.append(column.best(values) if column.best and len(values) > 1 else None)
    groups: dict[str, int] = {}
    for column in columns:
        groups[column.group] = groups.get(column.group, 0) + 1
    lines = []
    for name, row in rows.items():
        cells = [
            {"text": column.show(value := column.value(row)), "best": value is not None and value == best}
            for column, best in zip(columns, bests, strict=True)
        ]
        lines.append({"name": name, "note": words.get(name, ""), "colour": pictures.row_colour(name), "cells": cells})
    return {"groups": groups, "columns": columns, "lines": lines}


def _ordered(names: Iterable[str]) -> list[str]:
    """Known rows in the report's order, then the others as they come."""
    present = list(names)
    return [name for name in ROW_ORDER if name in present] + [name for name in present if name not in ROW_ORDER]


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def _latency(row: Row, batch: str) -> float | None:
    return (row.get("latency_ms") or {}).get(batch)


def _evaluations(row: Row) -> str:
    count = row.get("num_function_evaluations")
    return "" if count is None else f"{count:,} evaluation{'' if count == 1 else 's'}"


def _milliseconds(row: Row) -> str:
    return f"{number(_latency(row, '1'))} ms"


def _difference(ratio: float) -> str:
    if ratio >= 2:  # the ratio itself says it better than a percentage
        return ""
    return ": the same" if abs(ratio - 1) < 0.005 else f": {abs(ratio - 1):.0%} {'lower' if ratio < 1 else 'higher'}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "\u2013"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _in_words(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[count] if count < len(words) else f"{count:,}"


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(json.loads(json.dumps(value, default=str)), sort_keys=False, allow_unicode=True, width=100)
