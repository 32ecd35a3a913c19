"""What is planned before a run's own teacher is there: the same jobs under other hashes, and the same refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from msd.data.images import load_digits
from msd.errors import PartitionError, RecipeError
from msd.fleet.foresight import foreseen_plan
from msd.fleet.inputs import Inputs
from msd.fleet.plan import plan
from msd.recipe import load_recipe
from msd.teachers.facts import read_teacher

OWN = ["teacher.source=pretrain"]


@pytest.mark.parametrize(
    "change",
    [
        *(f"partition.method={method}" for method in ("contiguous", "random", "balanced-kmeans")),
        "rows.alike={partition.method: balanced-kmeans}",
    ],
)
def test_the_plan_foreseen_is_the_plan_made(change: str) -> None:
    """Names, order, batches and rows are those of the plan that the finished teacher gives."""
    recipe = load_recipe("digits", [change])
    made = plan(recipe, Inputs(read_teacher("packaged:digits")))
    job, foreseen = foreseen_plan(load_recipe("digits", [change, *OWN]), load_digits())
    assert job.name == "teacher"
    assert [one.name for one in foreseen.jobs] == [one.name for one in made.jobs]
    assert [(row.name, len(row.jobs), row.equal) for row in foreseen.rows] == [
        (row.name, len(row.jobs), row.equal) for row in made.rows
    ]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ("partition.num_parts=11", PartitionError, "11"),
        ("pairs.solver={sigma_min: 90}", RecipeError, "sigma_min 90 is not below sigma_max 80"),
        ("network.block_out_channels=[8,8,8,8,8]", RecipeError, "cannot be halved"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_teacher_is_trained(change: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        foreseen_plan(load_recipe("digits", [*OWN, change]), load_digits())


def test_rows_start_where_they_say(tmp_path: Path) -> None:
    """A start that is not there is missed at once, too."""
    recipe = load_recipe("digits", [*OWN, f"student.start={tmp_path / 'nowhere'}"])
    with pytest.raises(Exception, match="holds no student"):
        foreseen_plan(recipe, load_digits())
