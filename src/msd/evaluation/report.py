"""The report: one HTML file that needs no network, and metrics.json beside it, from what a run measured."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from msd.conditions.names import are_numbers, extremes, numbered, printable, share
from msd.evaluation import pictures
from msd.evaluation.pictures import Curve, number
from msd.evaluation.protocol import explained
from msd.evaluation.results import (
    EXPLANATIONS,
    Headline,
    Row,
    agreements,
    baseline_names,
    description,
    equality,
    headline,
    latencies,
    named_row,
    remarks,
)
from msd.evaluation.students import students_section
from msd.evaluation.table import size_share, table
from msd.files import write_json, write_text

PAGE, METRICS = "index.html", "metrics.json"
TEMPLATE = Path(__file__).with_name("report.html.j2")
TEMPLATES = tuple(sorted(Path(__file__).parent.glob("report*.html.j2")))
"""The page's, and those that it takes in."""
MOST_HERO_BASELINES = 2
"""At the top of the page there is room for the reference, the main row and this many of the baselines, the first ones."""


@dataclass(frozen=True)
class ReportInputs:
    """Everything the report shows. Rows, grids and curves may be missing, e.g. where baselines are switched off."""

    metrics: dict[str, Any]
    """The content of metrics.json (see `results`); the order of `rows` is the order everywhere on the page."""
    recipe: dict[str, Any]
    partition_report: dict[str, Any]
    """Of `Partition.report`: the main row's."""
    curves: list[Curve]
    grids: dict[str, Tensor]
    """Images `[num_labels * num_grid_columns, C, H, W]` of each row, a line of them per class, all from the same noise."""
    num_grid_columns: int
    versions: dict[str, str]


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write metrics.json and index.html, each complete or not at all; returns the latter. Raises RunError."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE.name).render(_context(inputs))
    write_json(folder / METRICS, inputs.metrics)
    write_text(folder / PAGE, page)
    return folder / PAGE


def _context(inputs: ReportInputs) -> dict[str, Any]:
    """All that the template shows; it formats nothing itself."""
    metrics, partition = inputs.metrics, inputs.partition_report
    rows: dict[str, Row] = metrics["rows"]
    main = metrics["main"]
    colours = pictures.row_colours(rows, main)
    provenances = _distinct(row["provenance"] for row in rows.values() if row.get("provenance"))
    metric = provenances[0].get("metric", "FD") if provenances else "FD"
    classes = _class_names(metrics, partition["num_conditions"])
    owners = {label: part["part"] for part in partition["parts"] for label in part["conditions"]}
    floor = metrics.get("floor") or {}
    sizes = _distinct(row.get("num_samples") for row in rows.values())
    held = {row["equal"]: equality(row) for row in rows.values() if row.get("equal")}
    return {
        "metrics": metrics,
        "main": main,
        "metric": metric,
        "num_parts": partition["num_parts"],
        "heading": f"One diffusion teacher, {_students(partition['num_parts'])}",
        "summary": _summary(metrics, partition, metric),
        "wall": _duration(metrics.get("wall_seconds")),
        "tiles": _tiles(metrics, metric),
        "heroes": _heroes(inputs, colours, owners, classes),
        "samples": _samples(inputs, owners, classes),
        "classes": classes,
        "are_named": not are_numbers(classes),
        "name_width": _name_width(classes),
        "extremes": extremes(prior := partition.get("prior") or ()),
        "shares": [share(value) for value in prior],
        "table": table(rows, main, metric, colours),
        **students_section(metrics, colours),
        "num_samples": f"{sizes[0]:,}" if len(sizes) == 1 and sizes[0] else None,
        "equalities": [(words, EXPLANATIONS.get(equal, "")) for equal, words in held.items()],
        "floors": [(f"{int(size):,}", number(value)) for size, value in floor.items()],
        "floor_row": floor.get(str(sizes[0])) if sizes else None,
        "agreements": agreements(metrics),
        "explained": explained(metric),
        "remarks": remarks(metrics),
        "number": number,
        "columns": _num_columns,
        "part_colour": pictures.part_colour,
        "per_part": pictures.part_charts(rows, main, partition, colours),
        "latency": pictures.latency_charts(rows, colours),
        "routing": [(batch, number(value)) for batch, value in (metrics.get("routing_ms") or {}).items()],
        "partition": partition,
        "curves": pictures.curve_charts(inputs.curves, rows, colours),
        "warnings": [(curve.job, sentence) for curve in inputs.curves for sentence in curve.warnings],
        "memorisation": {name: row["memorisation"] for name, row in rows.items() if row.get("memorisation")},
        "recipe": _yaml(inputs.recipe),
        "targets": _yaml(metrics["targets"]) if metrics.get("targets") else None,
        "timings": [(name, _duration(seconds)) for name, seconds in (metrics.get("seconds") or {}).items()],
        "versions": inputs.versions,
        "provenances": [_yaml(provenance) for provenance in provenances],
    }


def _class_names(metrics: Mapping[str, Any], num: int) -> tuple[str, ...]:
    """The name of each class as the page shows it; its number where it has none, or none that could be seen."""
    names = metrics.get("classes") or ()
    numbers = numbered(num)
    return (
        tuple(printable(name) or number for name, number in zip(names, numbers, strict=True))
        if len(names) == num
        else numbers
    )


def _name_width(classes: Sequence[str]) -> int:
    """Pixels beside a grid for the names of its lines: 18 for numbers below 100; what is longer than 88 is cut."""
    longest = max(sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in name) for name in classes)
    return 18 if longest <= 2 else min(88, 8 + 7 * longest)


def _summary(metrics: Mapping[str, Any], partition: Mapping[str, Any], metric: str) -> str:
    reference, head = named_row(metrics, "reference"), headline(metrics)
    evaluations = reference.get("num_function_evaluations")
    cost = f" that needs {evaluations} network evaluations an image" if evaluations else ""
    parts, classes = partition["num_parts"], partition["num_conditions"]
    whose = f", one per part of the {classes} class labels" if parts > 1 else f" of all {classes} class labels"
    smaller = f" of {share.replace('the', 'its')}" if (share := _smaller(metrics, named_row(metrics, "main"))) else ""
    sentence = f"A diffusion teacher{cost} was distilled into {_students(parts)}{smaller}{whose}"
    for batch, speed in list(head["speedups"].items())[:1]:
        sentence += f": {speed:.3g} times as fast, {_images(batch)} at a time"
    if head["frechet_distance"] is None:
        return sentence + "."
    against = [
        f"{number(line['frechet_distance'])} ({description(line) or line['name']})"
        for line in head["baselines"][:MOST_HERO_BASELINES]
        if line["frechet_distance"] is not None
    ]
    if reference.get("frechet_distance") is not None:
        against.append(
            f"{number(reference['frechet_distance'])} (the teacher, {description(reference) or head['reference']})"
        )
    compared = f", against {_listed(against)}" if against else ""
    return f"{sentence}, with an {metric} of {number(head['frechet_distance'])}{compared}; lower is better."


def _tiles(metrics: Mapping[str, Any], metric: str) -> list[dict[str, str]]:
    """The headline numbers; `tone` is good, neutral or bad by the number alone, whatever one had hoped for."""
    head, reference = headline(metrics), named_row(metrics, "reference")
    tiles = _speed_tile(head, metrics)
    distance = number(head["frechet_distance"])
    for line in head["baselines"]:
        if (ratio := line["ratio"]) is not None:
            note = f"{description(line)}: {distance} against {number(line['frechet_distance'])}{_difference(ratio)}"
            tiles.append(
                _tile(f"{ratio:.2f}\u00d7", f"the {metric} of {line['name']}", note.removeprefix(": "), _tone(ratio))
            )
    if (ratio := head["over_reference"]) is not None:
        note = f"{head['reference']}: {distance} against {number(reference['frechet_distance'])}{_difference(ratio)}"
        # Students seldom reach their teacher: a higher distance than its own is no failure.
        tone = "good" if ratio < 0.98 else "neutral"
        tiles.append(_tile(f"{ratio:.2f}\u00d7", f"the {metric} of the teacher", note, tone))
    if (accuracy := head["label_accuracy"]) is not None:
        note = f"teacher {value:.1%}" if (value := reference.get("label_accuracy")) is not None else ""
        tiles.append(_tile(f"{accuracy:.1%}", f"of the images by {head['main']} show the class asked for", note, "neutral"))
    return tiles


def _speed_tile(head: Headline, metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The speed-up of the smallest request, with that of the largest beside it."""
    if not head["speedups"]:
        return []
    (batch, speed), *others = head["speedups"].items()
    main, reference = (latencies(named_row(metrics, role))[batch] for role in ("main", "reference"))
    note = f"{number(main)} ms against {number(reference)} ms"
    if others:
        note += f"; {others[-1][1]:.3g}\u00d7 at batch {others[-1][0]}"
    return [_tile(f"{speed:.3g}\u00d7", f"the teacher's speed, {_images(batch)}", note, "good" if speed > 1 else "bad")]


def _tile(value: str, label: str, note: str, tone: str) -> dict[str, str]:
    return {"value": value, "label": label, "note": note, "tone": tone}


def _tone(ratio: float) -> str:
    return "neutral" if abs(ratio - 1) < 0.02 else "good" if ratio < 1 else "bad"


def _heroes(
    inputs: ReportInputs, colours: Mapping[str, str], owners: Mapping[int, int], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Reference, first baselines and main row at a glance: the first image of up to ten classes, and three numbers."""
    metrics = inputs.metrics
    rows: Mapping[str, Row] = metrics["rows"]
    main, reference = metrics["main"], metrics["reference"]
    titles = {reference: "The teacher"}
    for name in baseline_names(metrics)[:MOST_HERO_BASELINES]:
        titles[name] = _count(rows[name].get("num_students"))
    titles[main] = f"A cohort: {_count(inputs.partition_report['num_parts']).lower()}"
    heroes = []
    for name in (name for name in titles if name in rows):
        images = []
        pixels = inputs.grids.get(name, [])
        for label, index in enumerate(range(0, len(pixels), inputs.num_grid_columns)):
            colour = pictures.part_colour(owners.get(label, 0)) if name == main else colours[name]
            uri = pictures.png_data_uri(pictures.grid_image(pixels[index : index + 1], 1))  # pyright: ignore[reportArgumentType]
            images.append({"uri": uri, "label": classes[label], "colour": colour})
            if len(images) == 10:
                break
        row = rows[name]
        timed = list(latencies(row).items())[:1]
        facts = {
            "evaluations": number(row.get("num_function_evaluations"), 0),
            **{"ms an image" if batch == "1" else f"ms, batch {batch}": number(value) for batch, value in timed},
            (row.get("provenance") or {}).get("metric", "FD"): number(row.get("frechet_distance")),
        }
        note = equality(row) or (row.get("note") or "" if row["kind"] == "teacher" else "")
        note = ", ".join(filter(None, (_smaller(metrics, row), note)))
        heroes.append({"name": name, "note": note, "title": titles[name], "images": images, "facts": facts})
        heroes[-1] |= {"colour": colours[name], "main": name == main}
    return heroes


def _samples(inputs: ReportInputs, owners: Mapping[int, int], classes: Sequence[str]) -> list[dict[str, Any]]:
    rows, main = inputs.metrics["rows"], inputs.metrics["main"]
    result = []
    for name in (name for name in rows if name in inputs.grids):
        pixels = inputs.grids[name]
        num_lines = -(-len(pixels) // inputs.num_grid_columns)
        labels = range(num_lines) if num_lines <= 24 else ()
        result.append(
            {
                "name": name,
                "note": ", ".join(filter(None, (_evaluations(rows[name]), _smaller(inputs.metrics, rows[name])))),
                "uri": pictures.png_data_uri(pictures.grid_image(pixels, inputs.num_grid_columns)),
                "labels": [
                    {"label": classes[label], "colour": pictures.part_colour(owners.get(label, 0)) if name == main else None}
                    for label in labels
                ],
            }
        )
    return result


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _evaluations(row: Row) -> str:
    count = row.get("num_function_evaluations")
    return "" if count is None else f"{count:,} evaluation{'' if count == 1 else 's'}"


def _smaller(metrics: Mapping[str, Any], row: Row) -> str:
    """Of a row whose students are smaller than the reference: its share of the size; else nothing."""
    share = size_share(row, named_row(metrics, "reference"))
    return f"{share:.0%} of the size" if share is not None and share < 0.995 else ""


def _num_columns(num: int, most: int = 6) -> int:
    """As few lines as `most` allows, all about equally long."""
    return -(-num // max(1, -(-num // most)))


def _images(batch: str) -> str:
    return "one image" if batch == "1" else f"{int(batch):,} images"


def _students(count: int) -> str:
    return f"{_in_words(count)} one-step student{'' if count == 1 else 's'}"


def _count(count: int | None) -> str:
    return "Students" if count is None else f"{_in_words(count).capitalize()} student{'' if count == 1 else 's'}"


def _listed(pieces: list[str]) -> str:
    return " and ".join([*([", ".join(pieces[:-1])] if pieces[1:] else []), pieces[-1]])


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
