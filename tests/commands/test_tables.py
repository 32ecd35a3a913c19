"""Tables on narrow terminals: numbers stay whole, columns go in the stated order; and no cell is markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from msd.commands.tables import class_list, job_table, metrics_table, partition_table
from msd.conditions.partition import Partition
from msd.fleet.jobs import Status


def printed(table: Table, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, emoji=False).print(table)
    assert max(map(len, stream.getvalue().splitlines())) <= width
    return stream.getvalue()


def headings(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


STATUSES = {
    "student-of-a-long-name-12": Status(
        state="running", step=1234, num_steps=4000, stage="dm", seconds=71.0, steps_per_second=12.5,
        losses={"student/loss": 0.5, "critic/loss": 0.25},
    ),
    "[red]b[/x]": Status(state="failed", step=3, num_steps=4000, error="it broke:\n  [bold]at the second line[/nope]"),
}  # fmt: skip
ORDER = ["images/s", "conditions", "losses", "stage", "per second", "time", "left"]


def jobs(width: int) -> Table:
    return job_table(STATUSES, {"student-of-a-long-name-12": "0-4"}, width)


def test_the_live_table_drops_columns_in_the_stated_order_and_keeps_its_numbers() -> None:
    everything = headings(jobs(200))
    for width in range(200, 36, -1):
        shown = headings(jobs(width))
        gone = ORDER[: len(everything) - len(shown)]
        assert shown == [heading for heading in everything if heading not in gone], width
        text = printed(jobs(width), width)
        assert "1234 / 4000" in text
        assert "running" in text
    assert headings(jobs(40)) == ["job", "state", "done"]


def test_a_job_s_name_and_error_are_text() -> None:
    text = printed(jobs(140), 140)
    assert "[red]b[/x]" in text
    assert "[red]b[/x]: it broke: [bold]at the second line[/nope]" in text


def row(**values: object) -> dict:
    base = {"kind": "students", "note": "two students, routed", "equal": None, "num_function_evaluations": 1}
    base |= {"frechet_distance": 217.56, "kid": 0.0842, "precision": 0.985, "recall": 0.025, "label_accuracy": 1.0}
    return base | {"latency_ms": {"1": 4.0, "16": 9.0, "256": 1893.96}} | values


METRICS = {"main": "cohort", "rows": {"[b]teacher[/]": row(), "cohort": row(frechet_distance=None, kid=None)}}


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_of_rows_is_readable_at_any_width(width: int) -> None:
    """Numbers are whole, and what is left out is named; a number that is none is an empty cell."""
    table = metrics_table(METRICS, "title", width)
    text = printed(table, width)
    assert "217.56" in text
    assert "\u2026" not in text
    everything = headings(metrics_table(METRICS, "title", 200))
    gone = [heading for heading in everything if heading not in headings(table)]
    assert all(heading in " ".join(text.split()) for heading in gone)
    assert headings(metrics_table(METRICS, "title", 40))[:2] == ["sampler", "FD"]
    assert "[b]teach" in text


ANIMALS = ("cat", "dog", "[bold]emu[/x]", "\u732b\u732b\u732b", "a,\nb\x1b[31m", "x" * 90)


@pytest.mark.parametrize(
    ("conditions", "room", "text"),
    [
        ((0, 1), 24, "cat, dog"),
        ((0, 1, 2, 3), 24, "cat, dog, +2"),
        ((0, 1, 2), 24, "cat, dog, [bold]emu[/x]"),
        ((3, 0, 1, 2), 15, "\u732b\u732b\u732b, cat, +2"),  # these letters are two wide
        ((4,), 24, '"a, b [31m"'),
        ((5, 0), 24, f"{'x' * 15}..., +1"),
    ],
)
def test_classes_are_named_as_far_as_there_is_room(conditions: tuple[int, ...], room: int, text: str) -> None:
    shown = class_list(conditions, ANIMALS, room)
    assert str(shown) == text
    assert shown.cell_len <= room


def test_classes_without_names_are_runs_of_numbers() -> None:
    for classes in ((), tuple("01234567")):
        assert str(class_list([0, 1, 2, 7], classes, 24)) == "0-2, 7"


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_partition_names_its_classes_and_says_how_uneven_they_are(width: int) -> None:
    prior = (0.01, 0.2, 0.2, 0.2, 0.2, 0.19)
    partition = Partition(((0, 1, 2), (3, 4), (5,)), prior)
    text = printed(partition_table(partition.report(None, ANIMALS), width), width)
    assert "cat" in text
    assert "\x1b" not in text
    assert "classes differ in how often they occur: from cat (1.0%) to dog (20%)" in " ".join(text.split())
    assert ("[bold]emu[/x]" in text) is (width > 40)
    even = printed(partition_table(Partition.whole((0.25,) * 4).report(None), width), width)
    assert "0-3" in even
    assert "differ" not in even


def test_the_partition_fits_as_well() -> None:
    part = {"part": 0, "conditions": list(range(0, 40, 2)), "size": 20, "prior": 0.25, "coherence": 0.125}
    report = {"hash": "a" * 64, "method": "[bold]file", "parts": [part]}
    assert "0.2500" in printed(partition_table(report, 40), 40)
    assert "(method" not in printed(partition_table(report, 140), 140)
    assert "([bold]file)" in printed(partition_table(report, 140), 140)
