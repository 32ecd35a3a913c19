"""The rows of a table: overrides of one recipe by the code behind --set, checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.errors import RecipeError
from msd.recipe import MAIN_ROW, Recipe, load_recipe, validate


def recipe(rows: dict, **sections: object) -> Recipe:
    return validate({"name": "test", "rows": rows, **sections})


def refused(rows: dict, **sections: object) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(rows, **sections)
    return str(caught.value)


def test_by_default_two_single_students_are_compared() -> None:
    """One with the updates of a student of the cohort, one with the updates of all of them."""
    digits = load_recipe("digits")
    assert list(digits.rows) == ["single", "single-equal-total"]
    single, total = digits.row("single"), digits.row("single-equal-total")
    assert (single.equal, total.equal) == ("updates-per-student", "total-updates")
    assert single.note == total.note == "one student"  # what is held equal is said by `equal`
    for row in (single, total):
        assert row.batch == "whole"
        assert digits.variant(row.overrides).partition.num_parts == 1


def test_a_variant_differs_in_its_overrides_alone() -> None:
    """All else is the recipe's, and a variant has no rows of its own."""
    digits = load_recipe("digits")
    variant = digits.variant({"dm.regression.weight": 2, "student.sigma_init": 40, "equal": "total-images", "note": "x"})
    assert (variant.dm.regression.weight, variant.student.sigma_init, variant.rows) == (2, 40, {})
    same = {"dm", "student", "rows"}
    assert variant.model_dump(exclude=same) == digits.model_dump(exclude=same)
    assert variant.dm.model_dump(exclude={"regression"}) == digits.dm.model_dump(exclude={"regression"})


def test_rows_may_be_written_nested_or_dotted() -> None:
    """Both forms are the same row."""
    nested = recipe({"a": {"partition": {"num_parts": 2}, "dm": {"regression": {"weight": 3}}, "batch": "share"}})
    dotted = recipe({"a": {"partition.num_parts": 2, "dm.regression.weight": 3, "batch": "share"}})
    assert nested == dotted


def test_rows_of_equal_total_images() -> None:
    """The fair comparisons at equal images can be said."""
    digits = load_recipe(
        "digits",
        [
            "rows.cohort-small-batch={equal: total-images, batch: share}",
            "rows.single-small-batch={partition.num_parts: 1, equal: total-images, batch: share}",
        ],
    )
    assert list(digits.rows) == ["single", "single-equal-total", "cohort-small-batch", "single-small-batch"]
    row = digits.row("cohort-small-batch")
    assert (row.overrides, row.equal, row.batch) == ({}, "total-images", "share")


def test_set_reaches_into_rows() -> None:
    """--set changes or adds one row and leaves the others, also those that are there by default."""
    changed = load_recipe("digits", ["rows.single.dm.weight=0", "rows.pairs-only.dm.weight=0"])
    assert changed.row("single").overrides == {"partition.num_parts": 1, "dm.weight": 0}
    assert changed.rows["pairs-only"] == {"dm.weight": 0}
    assert "single-equal-total" in changed.rows
    assert load_recipe("digits", ["rows={}"]).rows == {}


def test_a_row_of_one_part_leaves_the_partition_file(tmp_path: Path) -> None:
    """So does one of another method; a row's own file is anchored where the recipe is."""
    (tmp_path / "mine.yaml").write_text(
        "partition: {method: file, file: split.yaml}\n"
        "rows:\n  single: {partition.num_parts: 1}\n  drawn: {partition.method: random}\n  other: {partition.file: b.yaml}\n"
        "  nested: {partition: {file: c.yaml}}\n"
    )
    mine = load_recipe(str(tmp_path / "mine.yaml"))
    one, drawn, other, nested = (mine.variant(mine.rows[name]).partition for name in mine.rows)
    assert (one.method, one.file, one.num_parts) == ("contiguous", None, 1)
    assert (drawn.method, drawn.file) == ("random", None)
    assert (other.method, other.file) == ("file", str(tmp_path.resolve() / "b.yaml"))
    assert nested.file == str(tmp_path.resolve() / "c.yaml")


def test_a_number_of_parts_beside_a_file_is_refused(tmp_path: Path) -> None:
    """The file decides, so the row would be the cohort under another name."""
    partition = {"method": "file", "file": str(tmp_path / "split.yaml")}
    message = refused({"x": {"partition.num_parts": 2}}, partition=partition)
    assert "rows.x: partition.num_parts changes nothing where a file divides" in message
    recipe({"x": {"partition.num_parts": 2, "partition.method": "random"}}, partition=partition)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"evaluation.seed": 3},
            "rows.x: evaluation.seed may not differ between the rows of a table, since all are measured",
        ),
        ({"seed": 3}, "rows.x: seed may not differ"),
        ({"device": "cuda"}, "rows.x: device may not differ"),
        ({"data.name": "digits"}, "rows.x: data.name may not differ"),
        ({"teacher": {"source": "x"}}, "rows.x: teacher.source may not differ"),
        ({"fleet.threads": 2}, "rows may set partition, pairs, tsm, dm, adm, student, precision and stages."),
        ({"rows": {"y": {"z": 1}}}, "rows.x: rows.y.z may not differ"),
        ({"name": "y"}, "rows.x: name may not differ"),
        ({"equl": "total-updates"}, "rows.x: equl is not a row's key; did you mean equal?"),
        ({"equal": "total-update"}, "rows.x: equal: 'total-update' is not one of updates-per-student, total-updates"),
        ({"equal": ["total-updates"]}, "rows.x: equal: ['total-updates'] is not one of"),
        ({"batch": "half"}, "rows.x: batch: 'half' is not one of whole, share"),
        ({"dm.learning_rat": 1}, "rows.x: dm.learning_rat is not a recipe key; did you mean learning_rate?"),
        ({"dm.sigma_init": 1}, "rows.x: dm.sigma_init is not a recipe key; did you mean student.sigma_init?"),
        ({"dm.num_updates": "many"}, "rows.x: dm.num_updates: input should be a valid integer"),
        ({"dm.num_updates.x": 1}, "rows.x: dm.num_updates.x: num_updates is a value, not a section"),
        ({"dm.regression.batch_size": 9999}, "rows.x: dm.regression.batch_size 9999 is larger than pairs.num_pairs"),
        ({"dm.weight": 0, "dm": {"weight": 1}}, "rows.x: dm.weight is set twice"),
        ({"stages": ["dmm"]}, "rows.x: stages: there is no stage 'dmm'"),
        (
            {"equal": "total-updates", "dm.num_updates": 3},
            "rows.x: equal: total-updates decides the number of updates itself, so dm.num_updates beside it would win",
        ),
        ({"equal": "total-images", "dm": {"num_updates": 3}}, "so dm.num_updates beside it would win nothing"),
        ({"batch": "share", "dm.batch_size": 3}, "so dm.batch_size beside it would win nothing"),
        ({"batch": "share", "dm.regression.batch_size": 3}, "so dm.regression.batch_size beside it would win nothing"),
        (3, "rows.x: input should be a valid dictionary"),
    ],
)
def test_impossible_rows_are_refused_by_name(row: dict, message: str) -> None:
    """Whatever a row cannot be is said when the recipe is read, with the row's name and the key."""
    assert message in refused({"x": row})


def test_updates_may_be_set_where_they_are_not_decided() -> None:
    """The refusals stop at their limit."""
    rows = {"a": {"dm.num_updates": 3}, "b": {"dm.batch_size": 3}, "c": {"equal": "total-updates", "dm.batch_size": 3}}
    assert list(recipe(rows).rows) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (MAIN_ROW, "rows.cohort: cohort is kept for the recipe's own row"),
        ("teacher-heun18", "is kept for the rows of the teacher"),
        ("a/b", "'a/b' cannot be a row's name"),
        ("..", "'..' cannot be a row's name"),
        ("", "'' cannot be a row's name"),
    ],
)
def test_names_that_rows_cannot_have(name: str, message: str) -> None:
    assert message in refused({name: {"partition.num_parts": 1}})


@pytest.mark.parametrize(
    ("rows", "source", "message"),
    [
        ({}, "singel", "pairs.source: there is no row 'singel'"),
        ({"single": {}}, "singel", "did you mean single?"),
        ({}, "cohort", "pairs.source: cohort -> cohort waits for itself"),
        ({"a": {"pairs.source": "b"}}, "teacher", "rows.a: pairs.source: there is no row 'b'"),
        ({"a": {"pairs.source": "a"}}, "teacher", "pairs.source: a -> a waits for itself"),
        ({"single": {"pairs.source": "cohort"}}, "single", "pairs.source: cohort -> single -> cohort waits for itself"),
        (
            {"a": {"pairs.source": "b"}, "b": {"pairs.source": "c"}, "c": {"pairs.source": "b"}},
            "teacher",
            "pairs.source: b -> c -> b waits for itself; set pairs.source: teacher in one of them.",
        ),
    ],
)
def test_rows_that_wait_for_each_other_are_refused(rows: dict, source: str, message: str) -> None:
    assert message in refused(rows, pairs={"source": source})


def test_pairs_may_come_from_a_row() -> None:
    """Either way round, and its variant stands alone though that row isn't in it."""
    given = recipe({"post": {"pairs.source": "single"}, "single": {"partition.num_parts": 1}})
    assert given.variant(given.rows["post"]).pairs.source == "single"
    recipe({"single": {"partition.num_parts": 1, "pairs.source": "teacher"}}, pairs={"source": "single"})
