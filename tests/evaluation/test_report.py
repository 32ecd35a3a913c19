"""The report renders from synthetic numbers, needs nothing outside itself, and says what the numbers say."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from msd.conditions.partition import Partition
from msd.evaluation.pictures import grid_image, number, png_data_uri, smoothed
from msd.evaluation.report import ROW_ORDER, ReportInputs, headline, write_report

PARTITION = Partition(parts=((0, 1), (2,), (3,)), prior=(0.25, 0.25, 0.25, 0.25))
DISTANCES = dict(zip(ROW_ORDER, (1.2, 37.0, 408.0, 3.4, 2.4, 2.6), strict=True))
LATENCIES = dict(zip(ROW_ORDER, (54.0, 6.0, 1.5, 1.5, 1.5, 1.6), strict=True))


def synthetic_row(name: str) -> dict[str, Any]:
    return {
        "num_function_evaluations": 35 if name == "teacher-heun18" else 1,
        "num_parameters_per_request": 312417,
        "frechet_distance": DISTANCES[name],
        "kid": 0.004,
        "precision": 0.86,
        "recall": 0.8,
        "label_accuracy": 0.985,
        "per_part": [2.0 * DISTANCES[name], None, 2.5 * DISTANCES[name]],
        "latency_ms": {"1": LATENCIES[name], "16": 3 * LATENCIES[name], "256": 20 * LATENCIES[name]},
        "peak_memory_mib": None if name == "single" else 41.5,
        "num_samples": 10000,
        "memorisation": {"median_nearest_distance": 0.21, "median_nearest_distance_real": 0.2, "share_of_copies": 0.01},
        "provenance": {"metric": "FD-digits", "reference": "digits", "partition_hash": PARTITION.hash},
    }


def synthetic_inputs() -> ReportInputs:
    generator = torch.Generator().manual_seed(0)
    names = ("student/loss", "student/dm", "student/regression", "student/gradient_norm", "critic/loss")
    records = [{"step": float(step), **dict.fromkeys(names, 1.0 / step)} for step in range(1, 31)]
    return ReportInputs(
        metrics={
            "schema": 1,
            "recipe": "digits",
            "seed": 0,
            "device": "cpu",
            "num_threads": 2,
            "wall_seconds": 240.1,
            "floor": {"1797": 4.145, "10000": 0.762},
            "routing_ms": {"16": 0.02},
            "rows": {name: synthetic_row(name) for name in reversed(ROW_ORDER)},
        },
        recipe={"name": "digits", "dm": {"total_updates": 250}, "baselines": ("single",)},
        partition_report=PARTITION.report(None),
        curves={"student-0": records, "student-1": records, "single": records},
        grids={name: torch.rand(4 * 3, 1, 8, 8, generator=generator) * 2 - 1 for name in ROW_ORDER},
        num_grid_columns=3,
        timings={"train": 61.0},
        versions={"torch": "2.9.0"},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page = write_report(folder, synthetic_inputs())
    return folder, page.read_text(encoding="utf-8")


def test_it_writes_a_page_and_the_same_metrics(written):
    folder, _ = written
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "metrics.json"]
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == synthetic_inputs().metrics


def test_the_page_needs_no_network(written):
    _, page = written
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    references = re.findall(r'(?:src|href|url)(?:="|\()([^")]*)', page)
    assert references
    assert all(reference.startswith(("data:image/png;", "#")) for reference in references)
    assert len(page) < 2_000_000


def test_the_page_shows_every_row_and_section(written):
    _, page = written
    for name in ROW_ORDER:
        assert f"</span>{name}<small>" in page, name
        assert f'alt="images by {name}"' in page, name
    for title in ("The same noise", "Quality and cost", "part by part", "Latency", "Partition", "Training", "Memorisation"):
        assert title in page, title
    assert "Distribution-matching loss" in page
    assert "FD-digits" in page
    assert "FID" not in page
    assert page.index("teacher-heun18") < page.index("teacher-euler4") < page.index("single-equal-total")


def test_the_table_states_its_floor_and_the_rows_left_out_of_the_bars(written):
    _, page = written
    assert "0.762" in page
    assert "Off this scale and left out: teacher-euler4, teacher-euler1." in page


def test_headline_ratios():
    ratios = headline(synthetic_inputs().metrics)
    assert ratios == {
        "fd_over_single": pytest.approx(2.6 / 3.4),
        "fd_over_single_equal_total": pytest.approx(2.6 / 2.4),
        "fd_over_teacher": pytest.approx(2.6 / 1.2),
        "speedup_batch_1": pytest.approx(54.0 / 1.6),
        "speedup_batch_256": pytest.approx(54.0 / 1.6),
        "label_accuracy": 0.985,
    }


def test_headline_of_missing_rows_is_none():
    assert set(headline({"rows": {}}).values()) == {None}
    assert headline({"rows": {"cohort": synthetic_row("cohort")}})["fd_over_single"] is None


def test_a_cohort_that_loses_is_said_to_lose(written):
    _, page = written
    assert '<div class="tile good"><b>0.76\u00d7</b>' in page
    assert '<div class="tile bad"><b>1.08\u00d7</b>' in page
    assert "2.60 against 2.40: 8% higher" in page


@pytest.mark.parametrize("kept", [("cohort",), ("teacher-heun18", "cohort"), ("single",), ()])
def test_missing_rows_grids_and_curves_are_tolerated(tmp_path, kept):
    inputs = synthetic_inputs()
    metrics = {**inputs.metrics, "rows": {name: synthetic_row(name) for name in kept}}
    bare = replace(inputs, metrics=metrics, grids={name: inputs.grids[name] for name in kept}, curves={})
    page = write_report(tmp_path, bare).read_text(encoding="utf-8")
    for name in kept:
        assert name in page
    assert "teacher-euler4" not in page


def test_missing_measurements_are_tolerated(tmp_path):
    inputs = synthetic_inputs()
    metrics = copy.deepcopy(inputs.metrics)
    for row in metrics["rows"].values():
        row["per_part"] = None
        for name in ("latency_ms", "peak_memory_mib", "memorisation", "provenance"):
            del row[name]
    for name in ("floor", "routing_ms", "wall_seconds"):
        del metrics[name]
    curves = {"student-0": [{"step": 1.0, "student/dm": float("nan")}, {"step": 2.0, "student/dm": 0.5}], "single": []}
    page = write_report(tmp_path, replace(inputs, metrics=metrics, grids={}, curves=curves)).read_text(encoding="utf-8")
    assert "Latency</h2>" not in page
    assert "Training</h2>" in page


def test_rows_of_different_references_raise_a_warning(tmp_path):
    inputs = replace(synthetic_inputs(), curves={}, grids={})
    inputs.metrics["rows"]["single"]["provenance"]["reference"] = "others"
    assert "must not be compared" in write_report(tmp_path, inputs).read_text(encoding="utf-8")


def test_strings_of_the_user_are_escaped(tmp_path):
    inputs = synthetic_inputs()
    hostile = '<b>$x$</b>"&'
    metrics = {**inputs.metrics, "recipe": hostile}
    metrics["rows"] = {**metrics["rows"], hostile: synthetic_row("single")}
    records = inputs.curves["single"]
    changed = replace(
        inputs, metrics=metrics, recipe={"name": hostile}, versions={hostile: hostile}, curves={hostile: records}
    )
    page = write_report(tmp_path, changed).read_text(encoding="utf-8")
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$" in page


def test_grid_image_places_images_row_by_row():
    pixels = torch.full((3, 1, 8, 8), -1.0)
    pixels[2] = 1.0
    picture = np.asarray(grid_image(pixels, num_columns=2))
    assert picture.shape == (2 * 42 + 2, 2 * 42 + 2)
    assert picture[10, 10] == 0  # first image
    assert picture[0, 0] == 255  # gap
    assert picture[60, 10] == 255  # third image, second row
    assert png_data_uri(grid_image(pixels, 2)).startswith("data:image/png;base64,")
    assert grid_image(torch.zeros(1, 3, 64, 64), 1).size == (68, 68)


def test_numbers_keep_three_digits():
    assert [number(value) for value in (408.2, 37.14, 2.603, 0.0204, None)] == ["408", "37.1", "2.60", "0.020", "\u2013"]


def test_smoothing_keeps_length_and_constants():
    assert smoothed(np.full(25, 3.0)) == pytest.approx(np.full(25, 3.0))
    assert len(smoothed(np.ones(3))) == 3
    assert len(smoothed(np.ones(0))) == 0
