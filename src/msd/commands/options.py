"""The options that verbs share, each declared once. A verb asks for a group of them by the type of a parameter:

    def partition(*, request: RunRequest, output: Output) -> None: ...

`with_options` shows typer the options of each group in the parameter's place, and gathers them again when the verb is
called. Nothing heavy is imported here, so that `msd --help` is instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from msd.checks import MAX_SEED
from msd.errors import RecipeError

if TYPE_CHECKING:
    from msd.commands.console import Output
    from msd.recipe import Recipe
    from msd.run import Run

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A packaged recipe's name (see `msd recipes`), or a path.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="A folder, zip or .npz of images, or a folder of IDX, Parquet or shard files."),
]
CohortArgument = Annotated[Path, typer.Argument(metavar="COHORT", help="A cohort's folder, e.g. runs/demo/cohort.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/demo.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe value, e.g. dm.learning_rate=3e-4.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")]


def a_path(text: str) -> Path:
    """The value of an option that names a place: nothing, which would mean the working folder, is no name."""
    if not text:
        raise typer.BadParameter("it is empty; give a name, or . for the working folder")
    return Path(text)


Out = Annotated[Path | None, typer.Option("--out", metavar="PATH", parser=a_path, help="Where results go.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a user wants other than a recipe says."""

    overrides: Overrides = None
    seed: Seed = None
    device: Device = None


@dataclass(frozen=True, kw_only=True)
class RecipeRequest(Changes):
    """A recipe with changes."""

    recipe: RecipeArgument

    def load(self) -> Recipe:
        """Raises RecipeError."""
        from msd.recipe import load_recipe

        return load_recipe(self.recipe, self.overrides, seed=self.seed, device=self.device)


@dataclass(frozen=True, kw_only=True)
class RunRequest(RecipeRequest):
    """A recipe with changes, and the folder it shall fill."""

    out: Out = None

    def run(self) -> Run:
        """By default in the folder runs/NAME. Writes nothing yet. Raises MsdError."""
        from msd.commands.targets import check_run
        from msd.run import Run

        recipe = self.load()
        run = Run.at(recipe, self.out or Path("runs") / recipe.name)
        check_run(run)
        return run


@dataclass(frozen=True, kw_only=True)
class Voice:
    """How a verb speaks. `--debug` is only declared here: it concerns errors, which no verb handles (see `cli.main`)."""

    json: Json = False
    debug: Debug = False

    def open(self) -> Output:
        from msd.commands.console import Output

        return Output(self.json)


GROUPS: tuple[type, ...] = (Changes, RecipeRequest, RunRequest, Voice)


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb as typer shall see it: with the options of its groups. A group's default replaces those of its options."""
    hints = get_type_hints(verb, localns={"Output": Voice}, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if hint in GROUPS}
    voice = next((name for name, group in groups.items() if group is Voice), None)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name in groups:
            parameters += _options_of(groups[parameter.name], parameter.default)
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))

    def command(**values: Any) -> None:
        for name, group in groups.items():
            gathered = group(**{field.name: values.pop(field.name) for field in fields(group)})
            values[name] = gathered.open() if isinstance(gathered, Voice) else gathered
        with values[voice].speaking() if voice else nullcontext():
            verb(**values)

    command.__name__, command.__doc__, command.__annotations__ = verb.__name__, verb.__doc__, {}
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return command


def _options_of(group: type, default: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        value = inspect.Parameter.empty if field.default is MISSING else field.default
        if default is not inspect.Parameter.empty:
            value = getattr(default, field.name)
        annotation = hints[field.name]
        found.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=annotation))
    return found


def numbers(text: str, option: str) -> list[int]:
    """The value of an option that takes a list of numbers. Raises RecipeError."""
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"{option} {text!r} is not a list of numbers; write e.g. {option} 0,2.") from error
