"""The page's section of students: what each row's are, what they began as and went through, how good their starts were."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msd.evaluation import pictures
from msd.evaluation.results import Row, named_row
from msd.evaluation.table import history, making
from msd.recipe import STAGES, section_of


def students_section(metrics: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """What `report-students.html.j2` shows."""
    rows: Mapping[str, Row] = metrics["rows"]
    return {
        "making": making(rows, metrics["main"], named_row(metrics, "reference"), colours),
        "stages": _stage_words(rows),
        "has_compute": any(row.get("training_flops") is not None for row in rows.values()),
        "starts": _starts(rows, colours),
    }


def _stage_words(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """What the rows' stages are called in full, as their sections in the recipe say it."""
    found = {stage["stage"] for row in rows.values() for stage in row.get("stages") or ()}
    return [(name.upper(), _title(section_of(name).__doc__ or "")) for name in STAGES if name in found]


def _title(documentation: str) -> str:
    return re.split("[:,.]", documentation)[0].lower()


def _starts(rows: Mapping[str, Row], colours: Mapping[str, str]) -> dict[str, Any]:
    """How good starts were: a curve a row of those that were measured, and why others were not."""
    told = {name: row["start_quality"] for name, row in rows.items() if row.get("start_quality")}
    measured = {name: start for name, start in told.items() if start.get("losses")}
    curves = {name: (start["sigmas"], start["losses"]) for name, start in measured.items()}
    counts = dict.fromkeys(f"{start['num_samples']:,}" for start in measured.values() if start.get("num_samples"))
    return {
        "svg": pictures.start_svg(curves, colours) if curves else "",
        "legend": [(name, colours[name], history(rows[name], until_distilled=True)) for name in measured],
        "num_samples": " or ".join(counts),
        "notes": [(name, start["note"]) for name, start in told.items() if start.get("note")],
    }
