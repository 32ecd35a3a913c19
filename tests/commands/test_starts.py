"""A run of small students says how good they were before distillation, as long as that can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command import msd

SMALL = (
    "stages=[tsm, dm]",
    "student.reduce=0.71",
    "tsm={num_updates: 4, batch_size: 8}",
    "rows={full: {student.reduce: null, stages: [dm]}}",
    "evaluation={num_samples: 40, teacher: [euler2], latency_batches: [1], latency_repeats: 1}",
)


def demo(out: Path) -> dict[str, Any]:
    changes = [word for one in SMALL for word in ("--set", one)]
    return json.loads(msd("demo", "smoke", *changes, "--out", out, "--json").stdout)["rows"]


def test_starts_are_measured_once_and_missed_when_they_are_gone(tmp_path: Path) -> None:
    first = demo(tmp_path)
    start = first["cohort"]["start_quality"]
    assert len(start["sigmas"]) == len(start["losses"]) == 8
    assert all(loss > 0 for loss in start["losses"])
    assert start["frechet_distance"] > first["cohort"]["frechet_distance"]
    assert start["num_samples"] == 40
    assert "start_quality" not in first["full"]  # a copy of its teacher
    assert first["cohort"]["training_flops"] > 0
    assert first["full"]["num_parameters_per_request"] > 2 * first["cohort"]["num_parameters_per_request"]
    for row in (first["cohort"], first["full"]):
        assert row["cohort_parameters"] == row["num_students"] * row["num_parameters_per_request"]

    next(tmp_path.glob("jobs/student-1-*/stages/0-tsm/bundle.safetensors")).unlink()
    assert demo(tmp_path)["cohort"]["start_quality"] == start
    (kept,) = tmp_path.glob("evaluations/start-*")
    kept.unlink()
    assert "cannot be read" in demo(tmp_path)["cohort"]["start_quality"]["note"]
    assert "no longer known" in (tmp_path / "report" / "index.html").read_text()
