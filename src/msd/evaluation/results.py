"""What metrics.json says, and what follows from it: its rows, in the table's order, and the ratios that a run is about.

No row has a name that the code knows; metrics.json says it all. `reference` names the row that speed and distance are
compared with (the teacher, sampled well), `main` the row that the run is about (its cohort). Every row says its `kind`
(teacher or students), a `note` for people ("18 Heun steps") and, of a baseline, what is held `equal` with the main row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field

from msd.evaluation.protocol import FID
from msd.reading import Kind, Notes, read_object

SCHEMA = 2

Row = Mapping[str, Any]

EXPLANATIONS = {
    "updates-per-student": "each student takes as many updates, at the same batch, as a student of the main row, in each "
    "stage that both have",
    "total-updates": "all students of the row together take as many updates as all students of the main row, in each "
    "stage that both have",
    "total-images": "all students of the row together see as many images in training as all students of the main row",
}
"""What a row may hold equal with the main row, for the reader of a table."""


class Baseline(TypedDict):
    """A row of students beside the main one; `ratio` is the main row's distance over its own (below 1: main is better)."""

    name: str
    note: str
    equal: str | None
    frechet_distance: float | None
    ratio: float | None


class Headline(TypedDict):
    """What was gained. None, or an empty dict, where a row or a measurement is missing."""

    main: str
    reference: str
    frechet_distance: float | None
    """Of the main row."""
    over_reference: float | None
    """The main row's distance over the reference's."""
    baselines: list[Baseline]
    speedups: dict[str, float]
    """The reference's time over the main row's, of each size of request that both were timed at."""
    label_accuracy: float | None
    routing_shares: dict[str, float]
    """Time to find the students of a request, over the time to answer it, by its size."""
    training_wall_seconds: float | None
    """Of the main row's students, by the clock."""
    seconds: dict[str, float]
    """By the clock, of each piece of work when it was done: pretraining, pairs, training, evaluation."""
    wall_seconds: float | None
    """Their sum."""


_Milliseconds = dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=0)]]
"""By size of request."""


class StageNotes(Notes):
    """A stage of a row's first student, or of what it started from."""

    stage: str
    num_updates: int
    batch_size: int
    own: bool = True
    """False of one that made the student which this one began as."""


class StartNotes(Notes):
    """What a row's students were before distillation (`starts.StartBench.measure`), or why nobody knows any more."""

    sigmas: tuple[float, ...] = ()
    losses: tuple[float | None, ...] = ()
    frechet_distance: float | None = None
    num_samples: int | None = None
    note: str | None = None


class _RowNotes(Notes):
    kind: Literal["teacher", "students"]
    note: str | None = None
    equal: str | None = None
    frechet_distance: float | None = None
    kid: float | None = None
    precision: float | None = None
    recall: float | None = None
    label_accuracy: float | None = None
    others: dict[str, float | None] | None = None
    """Distances in second opinions' features, by what they are called."""
    per_part: tuple[float | None, ...] | None = None
    num_function_evaluations: int | None = None
    num_samples: int | None = None
    num_students: int | None = None
    num_updates: int | None = None
    num_parameters_per_request: int | None = None
    stages: tuple[StageNotes, ...] = ()
    lineage: str | None = None
    start_quality: StartNotes | None = None
    training_flops: int | None = None
    cohort_parameters: int | None = None
    cohort_bytes: int | None = None
    latency_ms: _Milliseconds | None = None
    training_seconds: float | None = None
    training_wall_seconds: float | None = None
    provenance: dict[str, Any] | None = None
    memorisation: dict[str, float | None] | None = None


class _MetricNotes(Notes):
    reference: str
    main: str
    rows: dict[str, _RowNotes]
    floor: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], float | None] | None = None
    routing_ms: _Milliseconds | None = None
    seconds: dict[str, float | None] | None = None
    wall_seconds: float | None = None


_KIND = Kind("a run's metrics", "remove it to measure anew", schema=SCHEMA)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a metrics.json. Raises RunError when it cannot be read or is of another schema."""
    return read_object(path, _MetricNotes, _KIND)


def headline(metrics: Mapping[str, Any]) -> Headline:
    """The ratios of the main row to its reference and to every baseline, in the order of the table."""
    rows: Mapping[str, Row] = metrics["rows"]
    main, reference = named_row(metrics, "main"), named_row(metrics, "reference")
    distance = main.get("frechet_distance")
    answered = latencies(main)
    return {
        "main": metrics["main"],
        "reference": metrics["reference"],
        "frechet_distance": distance,
        "over_reference": ratio(distance, reference.get("frechet_distance")),
        "baselines": [
            {
                "name": name,
                "note": rows[name].get("note") or "",
                "equal": rows[name].get("equal"),
                "frechet_distance": rows[name].get("frechet_distance"),
                "ratio": ratio(distance, rows[name].get("frechet_distance")),
            }
            for name in baseline_names(metrics)
        ],
        "speedups": _ratios(latencies(reference), answered),
        "label_accuracy": main.get("label_accuracy"),
        "routing_shares": _ratios(metrics.get("routing_ms") or {}, answered),
        "training_wall_seconds": main.get("training_wall_seconds"),
        "seconds": metrics.get("seconds") or {},
        "wall_seconds": metrics.get("wall_seconds"),
    }


def named_row(metrics: Mapping[str, Any], role: str) -> Row:
    """The row that `metrics[role]` names ("main", "reference"); empty where it was not measured."""
    return metrics["rows"].get(metrics[role], {})


def baseline_names(metrics: Mapping[str, Any]) -> list[str]:
    """All rows of students but the main one, in the order of the table."""
    rows: Mapping[str, Row] = metrics["rows"]
    return [name for name, row in rows.items() if row["kind"] == "students" and name != metrics["main"]]


def latencies(row: Row) -> dict[str, float]:
    """Milliseconds of a request by its size, smallest first; empty where the clock did not run."""
    measured = row.get("latency_ms") or {}
    return {size: measured[size] for size in sorted(measured, key=int)}


def batch_sizes(rows: Mapping[str, Row]) -> list[str]:
    """All sizes of request that any row was timed at, smallest first."""
    return sorted({size for row in rows.values() for size in latencies(row)}, key=int)


def equality(row: Mapping[str, Any]) -> str:
    """What a row holds equal with the main one, in words: "equal total updates"; empty for nothing."""
    return f"equal {row['equal'].replace('-', ' ')}" if row.get("equal") else ""


def description(row: Mapping[str, Any]) -> str:
    """A row's note and what it holds equal: "one student, equal total updates"."""
    return ", ".join(piece for piece in (row.get("note"), equality(row)) if piece)


def other_metrics(rows: Mapping[str, Row]) -> list[str]:
    """What the distances of second opinions are called, in the order of the rows."""
    return list(dict.fromkeys(name for row in rows.values() for name in row.get("others") or {}))


def agreements(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence a second opinion: whether it puts the main row and its baselines in the same order as the first does."""
    rows: Mapping[str, Row] = metrics["rows"]
    main = named_row(metrics, "main")
    metric = (main.get("provenance") or {}).get("metric", "FD")
    sentences = []
    for other in other_metrics(rows):
        compared, contrary = [], []
        for name in baseline_names(metrics):
            first = _order(main.get("frechet_distance"), rows[name].get("frechet_distance"))
            second = _order(*((row.get("others") or {}).get(other) for row in (main, rows[name])))
            if first is None or second is None:
                continue
            compared.append(name)
            if first != second:
                contrary.append(name)
        if compared:
            verb, names = ("do not agree", contrary) if contrary else ("agree", compared)
            winner = f"on who wins between {metrics['main']} and {', '.join(names)}"
            sentences.append(f"{metric} and {other}{_counted(main, other)} {verb} {winner}.")
    return sentences


def remarks(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on what the main row's distance is not, and on what could not be measured beside it, with the reason."""
    said, sentences = named_row(metrics, "main").get("provenance") or {}, []
    if short := said.get("short_of_protocol"):
        sentences.append(f"Not the papers' protocol, and so not called {FID}: {', '.join(short)}.")
    if holds := said.get("reference_holds"):
        sentences.append(
            "No KID, precision, recall, distance of a part or floor: they need features of real images, and "
            f"{said['reference']} holds their {holds} alone."
        )
    return sentences


def _counted(row: Row, other: str) -> str:
    """On how many samples a second opinion is, where that is another number than the first one's."""
    num = (((row.get("provenance") or {}).get("also") or {}).get(other) or {}).get("num_samples")
    return "" if num in (None, row.get("num_samples")) else f" (on {num:,} samples)"


def _order(first: float | None, second: float | None) -> int | None:
    return None if first is None or second is None else (first > second) - (first < second)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None


def _ratios(numerators: Mapping[str, float], denominators: Mapping[str, float]) -> dict[str, float]:
    both = {size: ratio(numerators.get(size), value) for size, value in denominators.items()}
    return {size: value for size, value in both.items() if value is not None}
