"""Options shared by verbs: a verb names groups of them, and is called with each group gathered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from msd.commands.options import Changes, CohortArgument, Out, RunRequest, Voice, numbers, with_options
from msd.errors import RecipeError

PRESET = RunRequest(recipe="smoke", seed=4)


def run(verb: Any, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(with_options(verb))
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_group_is_gathered_from_its_options() -> None:
    """A recipe's request takes RECIPE, --set (repeatable), --seed, --device and --out, beside the verb's own options."""
    seen = {}

    def verb(*, level: Annotated[int, typer.Option()] = 3, request: RunRequest, output: Voice) -> None:
        """Help."""
        seen.update(level=level, request=request, output=output)

    run(verb, "digits", "--set", "a=1", "--set", "b=2", "--seed", "5", "--device", "cpu", "--out", "x", "--json")
    assert seen["request"] == RunRequest(recipe="digits", overrides=["a=1", "b=2"], seed=5, device="cpu", out=Path("x"))
    assert seen["level"] == 3
    assert seen["output"].json_only is True
    run(verb, "digits", "--level", "4")
    assert seen["request"] == RunRequest(recipe="digits")
    assert (seen["level"], seen["output"].json_only) == (4, False)


def test_a_groups_default_is_that_of_its_options() -> None:
    """So one verb can have another recipe or folder than the rest."""
    seen = []

    def verb(*, request: RunRequest = PRESET) -> None:
        seen.append(request)

    run(verb)
    run(verb, "digits", "--seed", "0")
    assert seen == [PRESET, RunRequest(recipe="digits", seed=0)]


def test_groups_mix_with_options_of_the_same_kind() -> None:
    """A verb on a cohort takes changes without a recipe, and a folder of its own."""
    seen = []

    def verb(*, cohort: CohortArgument, changes: Changes, out: Out = None) -> None:
        seen.append((cohort, changes, out))

    run(verb, "c", "--set", "evaluation.seed=1", "--out", "o")
    assert seen == [(Path("c"), Changes(overrides=["evaluation.seed=1"]), Path("o"))]


def test_a_request_loads_its_recipe_with_its_changes() -> None:
    recipe = RunRequest(recipe="digits", overrides=["dm.num_updates=7"], seed=0, device="cpu").load()
    assert (recipe.dm.num_updates, recipe.seed) == (7, 0)


def test_lists_of_numbers() -> None:
    assert numbers("0,2", "--students") == [0, 2]
    with pytest.raises(RecipeError, match=r"--students '0;2' is not a list of numbers; write e\.g\. --students 0,2"):
        numbers("0;2", "--students")
