"""What follows from a metrics.json, whatever its rows are called."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from msd.commands.console import Output, show_metrics
from msd.commands.tables import metrics_table
from msd.errors import RunError
from msd.evaluation.results import (
    agreements,
    batch_sizes,
    description,
    equality,
    headline,
    latencies,
    other_metrics,
    read_metrics,
)


def row(kind: str, distance: float | None, milliseconds: float, **facts: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "note": f"note of {distance}",
        "equal": None,
        "frechet_distance": distance,
        "kid": 0.004,
        "precision": 0.86,
        "recall": 0.8,
        "label_accuracy": 0.985,
        "num_function_evaluations": 1,
        "latency_ms": {"32": 20 * milliseconds, "2": milliseconds},
        "num_samples": 1000,
        "provenance": {"metric": "FD-cats"},
        **facts,
    }


def metrics() -> dict[str, Any]:
    return {
        "schema": 2,
        "device": "cpu",
        "latency_threads": 2,
        "floor": {"1000": 0.7},
        "seconds": {"training": 200.0, "evaluation": 40.0},
        "wall_seconds": 240.0,
        "routing_ms": {"2": 0.016, "999": 1.0},
        "reference": "slow",
        "main": "parts",
        "rows": {
            "slow": row("teacher", 1.2, 54.0),
            "one": row("students", 3.4, 1.5, equal="updates-per-student"),
            "parts": row("students", 2.6, 1.6, training_wall_seconds=70.0),
            "other": row("students", 2.4, 1.5, equal="total-images", latency_ms=None),
        },
    }


def test_headline_compares_the_main_row_with_every_other():
    head = headline(metrics())
    assert (head["main"], head["reference"], head["frechet_distance"]) == ("parts", "slow", 2.6)
    assert head["over_reference"] == pytest.approx(2.6 / 1.2)
    assert [(line["name"], line["equal"]) for line in head["baselines"]] == [
        ("one", "updates-per-student"),
        ("other", "total-images"),
    ]
    assert [line["ratio"] for line in head["baselines"]] == pytest.approx([2.6 / 3.4, 2.6 / 2.4])
    assert head["speedups"] == {"2": pytest.approx(54.0 / 1.6), "32": pytest.approx(54.0 / 1.6)}
    assert list(head["speedups"]) == ["2", "32"]
    assert head["routing_shares"] == {"2": pytest.approx(0.01)}
    assert (head["label_accuracy"], head["training_wall_seconds"], head["wall_seconds"]) == (0.985, 70.0, 240.0)
    assert json.loads(json.dumps(head)) == head


def test_headline_of_missing_rows_and_measurements_is_none():
    bare = headline(metrics() | {"rows": {}, "routing_ms": None, "wall_seconds": None})
    assert bare["baselines"] == []
    assert bare["speedups"] == bare["routing_shares"] == {}
    assert bare["frechet_distance"] is bare["over_reference"] is bare["label_accuracy"] is bare["wall_seconds"] is None
    without_main = metrics()
    del without_main["rows"]["parts"]
    assert [line["ratio"] for line in headline(without_main)["baselines"]] == [None, None]


def test_rows_are_described_by_what_they_hold_equal():
    assert equality({"equal": "total-images"}) == "equal total images"
    assert description({"note": "one student", "equal": "updates-per-student"}) == "one student, equal updates per student"
    assert description({"note": "", "equal": None}) == ""


def test_batch_sizes_are_ordered_as_numbers():
    assert batch_sizes(metrics()["rows"]) == ["2", "32"]
    assert latencies({"latency_ms": {"256": 3.0, "16": 2.0, "1": 1.0}}) == {"1": 1.0, "16": 2.0, "256": 3.0}


def test_metrics_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics()))
    assert read_metrics(path) == metrics()
    path.write_text(json.dumps({"schema": 1, "rows": {}}))
    with pytest.raises(RunError, match=r"by an older msd \(schema 1\); remove it to measure anew"):
        read_metrics(path)


def test_the_console_shows_every_row_and_every_size_of_request():
    table = metrics_table(metrics(), "title", 200)
    assert [column.header for column in table.columns][-2:] == ["ms \u00d72", "ms \u00d732"]
    stream = io.StringIO()
    Console(file=stream, width=200).print(table)
    text = stream.getvalue()
    for words in (*metrics()["rows"], "note of 3.4", "equal updates per student", "equal total images", "32.00"):
        assert words in text, words


def test_the_console_says_the_ratios(capsys):
    show_metrics(metrics(), Output())
    said = capsys.readouterr()
    for words in (
        "distance of parts over one (equal updates per student): 0.765",
        "distance of parts over other (equal total images): 1.08",
        "distance of parts over slow: 2.17",
        "speed of parts over slow, batch 2: 33.8",
        "time by the clock, when it was done: training 200 s, evaluation 40 s",
        "of the training, the students of parts: 70 s",
    ):
        assert words in said.err, words
    assert "FD-cats on 1000 samples; latency on cpu with 2 CPU threads" in said.out


def opinions(**distances: float | None) -> dict[str, Any]:
    """The rows' distances in a second opinion, where it has one."""
    found = metrics()
    for name, distance in distances.items():
        found["rows"][name]["others"] = {"FID-Lite0": distance}
    return found


def test_two_opinions_agree_or_it_is_said_between_whom_they_do_not():
    """By the first, parts (2.6) beats one (3.4) and loses to other (2.4)."""
    assert agreements(metrics()) == []
    assert agreements(opinions(parts=50.0, one=60.0, other=40.0)) == [
        "FD-cats and FID-Lite0 agree on who wins between parts and one, other."
    ]
    assert agreements(opinions(parts=50.0, one=45.0, other=40.0)) == [
        "FD-cats and FID-Lite0 do not agree on who wins between parts and one."
    ]
    assert agreements(opinions(parts=50.0, one=60.0, other=None)) == [
        "FD-cats and FID-Lite0 agree on who wins between parts and one."
    ]
    assert agreements(opinions(one=60.0)) == []
    counted = opinions(parts=50.0, one=60.0)
    counted["rows"]["parts"]["provenance"]["also"] = {"FID-Lite0": {"num_samples": 500}}
    assert agreements(counted) == ["FD-cats and FID-Lite0 (on 500 samples) agree on who wins between parts and one."]
    assert agreements(opinions(parts=None, one=60.0)) == []


def test_the_second_opinion_is_a_column_and_a_sentence(tmp_path, capsys):
    told = opinions(slow=9.0, parts=57.25, one=45.0, other=None)
    assert other_metrics(told["rows"]) == ["FID-Lite0"]
    stream = io.StringIO()
    Console(file=stream, width=200).print(metrics_table(told, "title", 200))
    assert "FID-Lite0" in stream.getvalue()
    assert "57.25" in stream.getvalue()
    show_metrics(told, Output())
    assert "FD-cats and FID-Lite0 do not agree on who wins between parts and one." in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text(json.dumps(told))
    assert read_metrics(tmp_path / "metrics.json") == told
