"""The command line: a table of verbs and their options. What a verb does is in `commands`, imported when it runs."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from msd import __version__
from msd.errors import Interrupted, MsdError, RecipeError

app = typer.Typer(
    name="msd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Multi-Student Distillation: one diffusion teacher, a cohort of one-step students behind a router.\n\n"
    "Start with [bold]msd demo[/] (minutes on a laptop), then use the same verbs with your own recipe.",
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A packaged recipe's name (see `msd recipes`), or a path.")
]
CohortArgument = Annotated[Path, typer.Argument(metavar="COHORT", help="A cohort's folder, e.g. runs/demo/cohort.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, e.g. runs/demo.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe value, e.g. dm.learning_rate=3e-4.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")]
Out = Annotated[Path | None, typer.Option("--out", help="Where results go.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON value on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _output(json_only: bool):
    from msd.commands.console import Output

    return Output(json_only)


def _run(recipe: str, overrides: list[str] | None, seed: int | None, device: str | None, out: Path | None):
    from msd.recipe import load_recipe
    from msd.run import Run

    loaded = load_recipe(recipe, overrides, seed=seed, device=device)
    return Run.create(loaded, out or Path("runs") / loaded.name)


@app.command()
def demo(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="A recipe's name or path.")] = "digits",
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Everything on one recipe, with baselines and a page to look at.

    Example: msd demo --out runs/demo
    """
    from msd.commands.demo import demo as command

    command(_run(recipe, overrides, seed, device, out or Path("runs/demo")), _output(json))


@app.command()
def recipes(json: Json = False, debug: Debug = False) -> None:
    """List the packaged recipes with cost and expected result.

    Example: msd recipes --json
    """
    from msd.commands.show import recipes as command

    output = _output(json)
    output.result(command(output))


@app.command()
def pretrain(
    recipe: RecipeArgument,
    network: Annotated[
        str, typer.Option(help="teacher, or features: the classifier behind the Frechet distance.")
    ] = "teacher",
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the recipe's teacher from images and record its quality.

    Example: msd pretrain digits --out runs/teacher, then msd distill digits --set teacher.source=runs/teacher/teacher
    """
    from msd.commands import pretrain as commands

    verbs = {"teacher": commands.pretrain_teacher, "features": commands.pretrain_features}
    if network not in verbs:
        raise RecipeError(f"--network {network} is not known; choose teacher or features.")
    run, output = _run(recipe, overrides, seed, device, out), _output(json)
    facts = verbs[network](run, output)
    quality = facts.get("quality", facts)
    shown = {key: quality[key] for key in ("frechet_distance", "label_accuracy", "held_out_accuracy") if key in quality}
    folder = run.teacher if network == "teacher" else run.folder / "features"
    output.result(facts, f"{folder}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))


@app.command()
def partition(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Divide the conditions among the students; prints and saves the report.

    Example: msd partition digits --set partition.method=balanced-kmeans --out runs/kmeans
    """
    from msd.commands.console import partition_table
    from msd.commands.prepare import open_teacher, partition_report

    run, output = _run(recipe, overrides, seed, device, out), _output(json)
    report = partition_report(run, open_teacher(run))
    output.show(partition_table(report))
    output.result(report, f"saved as {run.partition}")


@app.command()
def pairs(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the (noise, condition, teacher's sample) pairs; run again, it makes what is missing or damaged.

    Example: msd pairs digits --set pairs.num_pairs=6000
    """
    from dataclasses import asdict

    from msd.commands.prepare import ensure_pairs, open_teacher

    run, output = _run(recipe, overrides, seed, device, out), _output(json)
    report = ensure_pairs(run, open_teacher(run), output)
    output.result(
        asdict(report), f"{report.num_pairs} pairs in {run.pairs} ({len(report.made)} shards made, {len(report.kept)} kept)"
    )


@app.command()
def distill(
    recipe: RecipeArgument,
    students: Annotated[str | None, typer.Option(help="Only these students, e.g. 0,2.")] = None,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the students side by side and assemble the cohort; run again, it goes on where it stopped.

    Example: msd distill digits --students 0,2 --out runs/mine
    """
    from msd.commands.distill import distill as command

    chosen = _numbers(students, "--students") if students else None
    run, output = _run(recipe, overrides, seed, device, out), _output(json)
    summary = command(run, output, chosen)
    missing = ", ".join(map(str, summary["missing_students"]))
    output.result(summary, f"cohort: {summary['cohort']}" if not missing else f"still missing: students {missing}")


@app.command()
def status(run: RunArgument, json: Json = False, debug: Debug = False) -> None:
    """Show how far each student of a run is.

    Example: msd status runs/demo
    """
    from msd.commands.show import status as command

    output = _output(json)
    value = command(run, output)
    output.result(value, f"cohort: {value['cohort'] or 'not yet'}, report: {value['report'] or 'not yet'}")


@app.command()
def sample(
    cohort: CohortArgument,
    labels: Annotated[str | None, typer.Option(help="Classes, e.g. 3,7 (all by default).")] = None,
    num: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 8,
    seed: Seed = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="A .png grid, or .npz arrays.")] = Path("samples.png"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate images, one routed step each.

    Example: msd sample runs/demo/cohort --labels 3,7 --num 16 --out grid.png
    """
    from msd.commands.sample import sample as command

    chosen = _numbers(labels, "--labels") if labels else None
    value = command(cohort, chosen, num, seed or 0, out, device or "cpu")
    _output(json).result(value, f"{value['num_images']} images in {out}")


@app.command(name="eval")
def evaluate(
    cohort: CohortArgument,
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    out: Out = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a cohort beside its teacher: quality globally and per part, latency.

    Example: msd eval runs/demo/cohort --set evaluation.num_samples=2000 --json
    """
    from msd.commands.console import show_metrics
    from msd.commands.evaluate import cohort_recipe, evaluate_cohort

    output, saved = _output(json), out or cohort / "metrics.json"
    metrics = evaluate_cohort(cohort, cohort_recipe(cohort, overrides, seed, device), saved, output)
    show_metrics(metrics, output)
    output.result(metrics, f"saved as {saved}")


@app.command()
def report(run: RunArgument, out: Out = None, json: Json = False, debug: Debug = False) -> None:
    """Write a run's page (report/index.html) from its last evaluation, or measure it first.

    Example: msd report runs/demo
    """
    from msd.commands.evaluate import make_report
    from msd.run import Run

    output, opened = _output(json), Run.open(run)
    page = make_report(opened, output, folder=out or opened.report)
    output.result({"report": str(page)}, f"look at {page}")


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(piece) for piece in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"{option} {text!r} is not a list of numbers; write e.g. {option} 0,2.") from error


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"msd {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


class _Stopped(BaseException):
    """Ctrl-C. Not KeyboardInterrupt, which typer turns into a silent exit code 130."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def main() -> None:
    """Entry point: runs a verb; an error is one sentence on standard error and exit code 2 (1: stopped, student failed)."""
    # A spinning OpenMP barrier slows a busy machine down many times over; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except MsdError as error:
        _fail(error, error.exit_code)
    except _Stopped:
        _fail(Interrupted("stopped; what was finished is on disk, and the same command again goes on from there."), 1)
    except BrokenPipeError:
        sys.exit(1)


def _fail(error: MsdError, code: int) -> None:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
