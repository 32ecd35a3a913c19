"""The report renders from synthetic numbers, needs nothing outside itself, and says what the numbers say."""

from __future__ import annotations

import copy
import html
import json
import random
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from msd.conditions.partition import Partition
from msd.evaluation.pictures import Curve, curve_charts, grid_image, number, png_data_uri, row_colours, shortened, smoothed
from msd.evaluation.report import ReportInputs, write_report
from msd.evaluation.results import SCHEMA

PARTITION = Partition(parts=((0, 1), (2,), (3,)), prior=(0.25, 0.25, 0.25, 0.25))
TEACHERS = {"well": (35, "18 Heun steps"), "quick": (4, "4 Euler steps"), "rash": (1, "1 Euler step")}
STUDENTS = {
    "lone": (1, "one student", "updates-per-student"),
    "lone-patient": (1, "one student", "total-updates"),
    "a-cohort-with-a-small-batch-and-a-long-name": (3, "three students", "total-images"),
    "plain": (3, "three students, no regression", None),
    "ours": (3, "three students, routed", None),
}
NAMES = (*TEACHERS, *STUDENTS)
MAIN, REFERENCE = "ours", "well"
DISTANCES = dict(zip(NAMES, (1.2, 37.0, 408.0, 3.4, 2.4, 2.9, 3.1, 2.6), strict=True))
LATENCIES = dict(zip(NAMES, (54.0, 6.0, 1.5, 1.5, 1.5, 1.6, 1.6, 1.6), strict=True))


def synthetic_row(name: str) -> dict[str, Any]:
    if name in TEACHERS:
        evaluations, note = TEACHERS[name]
        facts: dict[str, Any] = {"kind": "teacher", "note": note, "equal": None, "num_students": None}
    else:
        evaluations, (num_students, note, equal) = 1, STUDENTS[name]
        batch_size = 21 if equal == "total-images" else 64
        facts = {"kind": "students", "note": note, "equal": equal, "num_students": num_students, "num_updates": 880}
        facts |= {"batch_size": batch_size, "total_updates": 880 * num_students, "training_seconds": 61.0}
        facts |= {"total_images": 880 * num_students * batch_size, "training_wall_seconds": 40.0}
    return facts | {
        "num_function_evaluations": evaluations,
        "num_parameters_per_request": 312417,
        "frechet_distance": DISTANCES[name],
        "kid": 0.004,
        "precision": 0.86,
        "recall": 0.8,
        "label_accuracy": 0.985,
        "per_part": [2.0 * DISTANCES[name], None, 2.5 * DISTANCES[name]],
        "latency_ms": {"1": LATENCIES[name], "16": 3 * LATENCIES[name], "256": 20 * LATENCIES[name]},
        "peak_memory_mib": None if name == "lone" else 41.5,
        "num_samples": 10000,
        "memorisation": {"median_nearest_distance": 0.21, "median_nearest_distance_real": 0.2, "share_of_copies": 0.01},
        "provenance": {"metric": "FD-digits", "reference": "digits", "partition_hash": PARTITION.hash},
    }


def synthetic_metrics() -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "recipe": "digits",
        "seed": 0,
        "device": "cpu",
        "num_threads": 2,
        "latency_threads": 1,
        "seconds": {"training": 200.0, "evaluation": 40.1},
        "wall_seconds": 240.1,
        "floor": {"1797": 4.145, "10000": 0.762},
        "routing_ms": {"16": 0.02},
        "reference": REFERENCE,
        "main": MAIN,
        "rows": {name: synthetic_row(name) for name in NAMES},
    }


def synthetic_curves() -> list[Curve]:
    """The main row's students, one of which the row `plain` shares; a single student."""
    names = ("student/loss", "student/dm", "student/regression", "student/gradient_norm", "critic/loss")
    records = [{"step": float(step), **dict.fromkeys(names, 1.0 / step)} for step in range(1, 31)]
    return [
        Curve("ours/0", MAIN, 0, records),
        Curve("ours/1", MAIN, 1, records),
        Curve("ours/1", "plain", 1, records),
        Curve("lone", "lone", 0, records),
    ]


def synthetic_inputs() -> ReportInputs:
    generator = torch.Generator().manual_seed(0)
    return ReportInputs(
        metrics=synthetic_metrics(),
        recipe={"name": "digits", "dm": {"total_updates": 250}},
        partition_report=PARTITION.report(None),
        curves=synthetic_curves(),
        grids={name: torch.rand(4 * 3, 1, 8, 8, generator=generator) * 2 - 1 for name in NAMES},
        num_grid_columns=3,
        versions={"torch": "2.9.0"},
    )


def small_metrics() -> dict[str, Any]:
    """Rows of two sizes, of which one went through three stages from a start of its own, and one began as another row."""
    metrics = synthetic_metrics()
    rows = metrics["rows"]
    dm = {"stage": "dm", "num_updates": 880, "batch_size": 64, "own": True}
    levels = {"sigmas": [0.01, 1.0, 80.0], "losses": [0.3, None, 0.04], "frechet_distance": 321.5, "num_samples": 2000}
    ours = {"lineage": "slices of the teacher", "start_quality": levels, "num_parameters_per_request": 88_000}
    stages = [dm | {"stage": "tsm", "num_updates": 1600, "batch_size": 128}, dm, dm | {"stage": "adm", "num_updates": 60}]
    disk = {"training_flops": 2_345_678_901_234, "cohort_parameters": 264_000, "cohort_bytes": 3 * 2**20}
    rows[MAIN] |= ours | disk | {"stages": stages}
    lone = {"lineage": "slices of the student plain", "start_quality": {"note": "its weights are gone"}}
    rows["lone"] |= lone | {"stages": [dm | {"own": False, "num_updates": 99}, dm]}
    return metrics


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    page = write_report(tmp_path_factory.mktemp("small"), replace(synthetic_inputs(), metrics=small_metrics()))
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page = write_report(folder, synthetic_inputs())
    return folder, page.read_text(encoding="utf-8")


def test_it_writes_a_page_and_the_same_metrics(written):
    folder, _ = written
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "metrics.json"]
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == synthetic_inputs().metrics


def test_times_say_what_they_are_times_of(written):
    _, page = written
    assert "training and evaluation took 4 min 0 s" in page
    assert "<td>training</td><td>3 min 20 s</td>" in page
    assert "<td>evaluation</td><td>40.1 s</td>" in page


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
    for name in NAMES:
        assert f"</span>{name}<small>" in page, name
        assert f'alt="images by {name}"' in page, name
    for title in ("The same noise", "Quality and cost", "part by part", "Latency", "Partition", "Training", "Memorisation"):
        assert title in page, title
    assert "Distribution-matching loss" in page
    assert "FD-digits" in page
    assert "FID" not in page
    table = page[page.index("Quality and cost") :]
    places = [table.index(f"</span>{name}<small>") for name in NAMES]
    assert places == sorted(places)


def test_the_table_states_its_floor_and_the_rows_left_out_of_the_bars(written):
    _, page = written
    assert "0.762" in page
    assert "Off this scale and left out: quick, rash." in page


def test_a_second_opinion_is_a_column_and_a_verdict_where_there_is_one(tmp_path, written):
    for name, row in (inputs := synthetic_inputs()).metrics["rows"].items():
        row["others"] = {"FID-Lite0": 77.7 + (name != MAIN)}
    page = write_report(tmp_path, inputs).read_text(encoding="utf-8")
    for words in ("FID-Lite0\u00a0\u2193", "77.7", "FID-Lite0 do not agree on who wins between ours and lone-patient."):
        assert (words in page, words in written[1]) == (True, False)


def test_what_is_not_the_papers_protocol_is_not_called_by_its_name(tmp_path):
    """The name is the provenance's wherever it stands; why it is none, and why cells are empty, is said below the table."""
    inputs, name = synthetic_inputs(), "FID-Inception (10,000 samples)"
    for row in inputs.metrics["rows"].values():
        row |= dict.fromkeys(("kid", "precision", "recall", "per_part"))
        row["provenance"] |= {
            "metric": name,
            "reference": "imagenet-64x64.npz",
            "reference_holds": "mean and covariance",
            "short_of_protocol": ["10,000 samples, not 50,000"],
        }
    inputs.metrics["floor"] = {}
    page = " ".join(html.unescape(write_report(tmp_path, inputs).read_text(encoding="utf-8")).split())
    assert f"{name} \u2193" in page
    assert f"with an {name} of" in page
    assert "and so not called FID: 10,000 samples, not 50,000." in page
    assert "imagenet-64x64.npz holds their mean and covariance alone" in page
    assert "KID \u2193" not in page
    assert "this data set's own network" not in page


def test_a_cohort_that_loses_is_said_to_lose(written):
    _, page = written
    assert '<div class="tile good"><b>0.76\u00d7</b>' in page
    assert '<div class="tile bad"><b>1.08\u00d7</b>' in page
    assert "one student, equal total updates: 2.60 against 2.40: 8% higher" in page


def test_only_the_equalities_that_occur_are_explained(tmp_path, written):
    _, page = written
    for words in ("Equal updates per student</b>: each", "Equal total updates</b>: all", "Equal total images</b>: all"):
        assert words in page
    inputs = replace(synthetic_inputs(), curves=[], grids={})
    del inputs.metrics["rows"]["a-cohort-with-a-small-batch-and-a-long-name"]
    assert "Equal total images" not in write_report(tmp_path, inputs).read_text(encoding="utf-8")


def renamed(inputs: ReportInputs, names: dict[str, str]) -> ReportInputs:
    metrics = dict(inputs.metrics)
    metrics["rows"] = {names[name]: row for name, row in metrics["rows"].items()}
    metrics |= {role: names[metrics[role]] for role in ("main", "reference")}
    curves = [replace(curve, row=names[curve.row]) for curve in inputs.curves]
    return replace(
        inputs, metrics=metrics, curves=curves, grids={names[name]: value for name, value in inputs.grids.items()}
    )


def test_the_page_knows_no_row_by_its_name(tmp_path, written):
    """All rows under meaningless names of the same lengths: the same page, but for the names."""
    _, page = written
    shuffled = random.Random(0)
    names = {name: "".join(shuffled.choices("QXZ", k=len(name))) for name in NAMES}
    assert len(set(names.values())) == len(names)
    other = write_report(tmp_path, renamed(synthetic_inputs(), names)).read_text(encoding="utf-8")

    def figures(text: str) -> list[str]:
        return re.findall(r"\d+(?:\.\d+)?", re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))

    assert figures(other) == figures(page)
    words = re.findall(r"<svg.*?</svg>", other, flags=re.DOTALL)
    assert len(words) == page.count("<svg")
    for name, meaningless in names.items():
        assert other.count(meaningless) >= 3, name


def test_a_job_that_rows_share_is_shown_once(written):
    _, page = written
    training = page[page.index("Training</h2>") :]
    assert training.count('title="ours/1"') == training.count('title="lone"') == 4
    colours = row_colours(synthetic_metrics()["rows"], MAIN)
    assert f'background: {colours["lone"]}"></span><span title="lone">' in training  # not divided: its row's colour
    assert f'background: {colours[MAIN]}"></span><span title="ours' not in training  # its part's


def test_every_row_has_a_colour():
    """The main row's is its own; there may be more rows than colours."""
    rows = {f"row-{index}": {"kind": "students" if index % 3 else "teacher"} for index in range(40)}
    colours = row_colours(rows, "row-2")
    assert colours.keys() == rows.keys()
    assert list(colours.values()).count(colours["row-2"]) == 1
    assert len({colours[f"row-{index}"] for index in (0, 1, 2, 3, 4, 5, 7)}) == 7


def test_long_names_lose_their_middle_in_charts():
    assert shortened("short") == "short"
    assert shortened("a-cohort-with-a-small-batch", 11) == "a-coh\u2026batch"
    assert len(shortened("x" * 99)) == 20


@pytest.mark.parametrize("kept", [(MAIN,), (REFERENCE, MAIN), ("lone",), ()])
def test_missing_rows_grids_and_curves_are_tolerated(tmp_path, kept):
    inputs = synthetic_inputs()
    metrics = {**inputs.metrics, "rows": {name: synthetic_row(name) for name in kept}}
    bare = replace(inputs, metrics=metrics, grids={name: inputs.grids[name] for name in kept}, curves=[])
    page = write_report(tmp_path, bare).read_text(encoding="utf-8")
    for name in kept:
        assert name in page
    assert "quick" not in page


def test_missing_measurements_are_tolerated(tmp_path):
    inputs = synthetic_inputs()
    metrics = copy.deepcopy(inputs.metrics)
    for row in metrics["rows"].values():
        row["per_part"] = None
        for name in ("latency_ms", "peak_memory_mib", "memorisation", "provenance"):
            del row[name]
    for name in ("floor", "routing_ms", "wall_seconds"):
        del metrics[name]
    records = [{"step": 1.0, "student/dm": float("nan")}, {"step": 2.0, "student/dm": 0.5}]
    curves = [Curve("ours/0", MAIN, 0, records), Curve("lone", "lone", None, [])]
    page = write_report(tmp_path, replace(inputs, metrics=metrics, grids={}, curves=curves)).read_text(encoding="utf-8")
    assert "Latency</h2>" not in page
    assert "Training</h2>" in page


def test_rows_of_different_references_raise_a_warning(tmp_path):
    inputs = replace(synthetic_inputs(), curves=[], grids={})
    inputs.metrics["rows"]["lone"]["provenance"]["reference"] = "others"
    assert "must not be compared" in write_report(tmp_path, inputs).read_text(encoding="utf-8")


def test_strings_of_the_user_are_escaped(tmp_path):
    inputs = synthetic_inputs()
    hostile = '<b>$x$</b>"&'
    metrics = {**inputs.metrics, "recipe": hostile}
    metrics["rows"] = {**metrics["rows"], hostile: synthetic_row("lone") | {"note": hostile}}
    curves = [Curve(hostile, hostile, None, inputs.curves[0].records, (hostile,))]
    changed = replace(inputs, metrics=metrics, recipe={"name": hostile}, versions={hostile: hostile}, curves=curves)
    page = write_report(tmp_path, changed).read_text(encoding="utf-8")
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$" in page
    assert "</bdi></b> warned: &lt;b&gt;$x$" in page


NAMED = ("cat", "<script>alert('x')</script>", "\u0642\u0637\u0629", "\u732b" * 40 + "\n\x00")


@pytest.fixture(scope="module")
def named_page(tmp_path_factory):
    inputs = replace(synthetic_inputs(), curves=[])
    lasting = replace(PARTITION, prior=(0.004, 0.306, 0.4, 0.29))
    report = lasting.report(None, NAMED)
    changed = replace(inputs, metrics=inputs.metrics | {"classes": list(NAMED)}, partition_report=report)
    return write_report(tmp_path_factory.mktemp("named"), changed).read_text(encoding="utf-8")


def test_classes_are_shown_by_name_beside_images_parts_and_charts(named_page):
    escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"
    assert "<script" not in named_page
    long = "\u732b" * 40
    for name in ("cat", escaped, "\u0642\u0637\u0629", long):
        whole = f'<bdi title="{name}">{name}</bdi>'
        assert named_page.count(whole) >= len(NAMES) + 4, name  # a line of every grid, and a picture of every hero
        assert f'title="{name}"><bdi>{name}</bdi>' in named_page  # the part's chip
    assert "\x00" not in named_page
    per_part = named_page[named_page.index("part by part") : named_page.index("Latency")]
    assert f'<bdi title="{long}">' in per_part
    assert f">{long}<" not in per_part  # cut: the title has all of it
    assert '<bdi title="cat">cat</bdi>, <bdi' in per_part
    assert f'alt="class {escaped}"' in named_page
    assert f"grid-template-columns: {88}px minmax" in named_page


def test_uneven_classes_are_told_with_their_shares(named_page, written):
    _, page = written
    ends = [
        f'<bdi title="{name}">{name}</bdi> ({share})' for name, share in (("cat", "0.4%"), ("\u0642\u0637\u0629", "40%"))
    ]
    assert f"Classes differ in how often they occur: from {ends[0]} to {ends[1]}." in named_page
    assert "<small>31%</small>" in named_page
    assert "differ in how often" not in page


def test_classes_without_names_are_shown_by_number_as_ever(tmp_path):
    """Metrics and reports of an older msd have none; the page is the same, letter by letter."""
    pages = set()
    for classes in ({}, {"classes": ["0", "1", "2", "3"]}, {"classes": ["one", "name"]}):
        inputs = replace(synthetic_inputs(), curves=[])
        inputs.partition_report.pop("classes")
        changed = replace(inputs, metrics=inputs.metrics | classes)
        pages.add(write_report(tmp_path, changed).read_text(encoding="utf-8"))
    (page,) = pages
    assert "<bdi" not in page
    assert "grid-template-columns: 18px minmax" in page


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


def section(page: str, begin: str, end: str) -> str:
    return " ".join(page[page.index(begin) : page.index(end)].replace("\u00a0", " ").split())


def test_students_are_shown_with_size_lineage_stages_and_cost(small: str) -> None:
    shown = section(small, "The students and their training", "part by part")
    assert "slices of the teacher \u2192 TSM 1,600 \u2192 DM 880 \u2192 ADM 60" in shown
    assert "slices of the student plain (DM 99) \u2192 DM 880" in shown
    assert "TSM: teacher score matching. DM: distribution matching. ADM: adversarial distribution matching." in shown
    for cell in ("88", "28", "322", "2,346", "264", "3.00"):  # size, its share, start, GFLOP, all sizes, MiB
        assert f"<td>{cell}</td>" in shown, cell
    assert "GFLOP" in shown
    assert "<td>169</td>" in shown  # images, in thousands: the stages' batches differ
    assert "one-step students of 28% of its size" in section(small, "<h1>", "recipe <b>")
    assert "1 evaluation, 28% of the size" in section(small, "The same noise", "Quality and cost")


def test_starts_are_drawn_and_those_that_are_lost_are_said(small: str) -> None:
    shown = section(small, "Before distillation", "part by part")
    assert 'aria-label="loss of each row\'s start by noise level"' in shown
    assert "<b>ours</b> <small>slices of the teacher \u2192 TSM 1,600</small>" in shown
    assert "lone: no longer known (its weights are gone)" in shown
    assert "2,000 images" in shown


def test_a_run_that_counted_nothing_has_no_empty_columns(written) -> None:
    """As old runs are: no stages, lineage, arithmetic or starts."""
    shown = section(written[1], "The students and their training", "part by part")
    for absent in ("FLOP", "compute", "on disk", "Before distillation", "start, one step"):
        assert absent not in shown
    assert "<td>2,640</td>" in shown


def test_a_share_is_drawn_from_0_to_1(written) -> None:
    records = [{"step": float(step), "discriminator/accuracy": 0.55} for step in range(40)]
    (chart,) = curve_charts([Curve("ours/0", MAIN, 0, records)], synthetic_metrics()["rows"], {MAIN: "#000000"})
    svg = chart["panels"][0]["svg"]
    assert all(f">{tick}</text>" in svg for tick in ("0", "0.5", "1"))
