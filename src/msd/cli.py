"""The command line: a table of verbs. Each verb's options and help are in a file of `commands/verbs`, and what it does is
imported when it runs."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from msd import __version__
from msd.commands.failures import translated
from msd.commands.options import with_options
from msd.commands.streams import abandon, make_usable, one_line, writing
from msd.errors import Interrupted, MsdError, UsageError

VERBS = {
    "init": "msd.commands.verbs.init:init",
    "demo": "msd.commands.verbs.demo:demo",
    "recipes": "msd.commands.verbs.recipes:recipes",
    "plan": "msd.commands.verbs.plan:plan",
    "shrink": "msd.commands.verbs.shrink:shrink",
    "pretrain": "msd.commands.verbs.pretrain:pretrain",
    "partition": "msd.commands.verbs.partition:partition",
    "pairs": "msd.commands.verbs.pairs:pairs",
    "distill": "msd.commands.verbs.distill:distill",
    "status": "msd.commands.verbs.status:status",
    "sample": "msd.commands.verbs.sample:sample",
    "eval": "msd.commands.verbs.evaluate:evaluate",
    "report": "msd.commands.verbs.report:report",
}
"""Name and function of each verb, in the order of `msd --help`. A new verb is a file and a line here."""

DATA_VERBS = {
    "check": "msd.commands.verbs.data:check",
    "reference": "msd.commands.verbs.data:reference",
}
"""The verbs of `msd data`."""

TEACHER_VERBS = {
    "inspect": "msd.commands.verbs.teacher:inspect",
    "convert": "msd.commands.verbs.teacher:convert",
    "sample": "msd.commands.verbs.teacher:sample",
}
"""The verbs of `msd teacher`."""

app = typer.Typer(
    name="msd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Multi-Student Distillation: one diffusion teacher, a cohort of one-step students behind a router.\n\n"
    "Start with [bold]msd demo[/] (minutes on a laptop), then use the same verbs with your own recipe.",
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Look at images, and prepare what is measured by."
)
teacher_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Look at teachers: packaged ones, folders, EDM pickles."
)


def _fill(group: typer.Typer, verbs: dict[str, str]) -> None:
    for name, target in verbs.items():
        module, function = target.split(":")
        group.command(name)(with_options(getattr(importlib.import_module(module), function)))


_fill(app, VERBS)
_fill(data_app, DATA_VERBS)
_fill(teacher_app, TEACHER_VERBS)
app.add_typer(data_app, name="data")
app.add_typer(teacher_app, name="teacher")


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"msd {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


CLICK_ERROR: type[Any] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
"""What typer raises for a wrong command line; newer versions bring a click of their own."""


class _Stopped(BaseException):
    """Asked to stop. Not KeyboardInterrupt, which typer turns into a silent exit code 130."""

    asked = False
    """Whether it was raised: a library may have swallowed it, and failed of it in its own words."""


def _stop(number: int, frame: object) -> None:
    _Stopped.asked = True
    raise _Stopped


STOPPED = Interrupted("stopped; what was finished is on disk, and the same command again goes on from there.")


def main() -> None:
    """Entry point: runs a verb; an error is one sentence on standard error and exit code 2 (1: stopped, student failed)."""
    # A spinning OpenMP barrier slows a busy machine down many times over; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    make_usable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C, a scheduler, a closed terminal
        signal.signal(number, _stop)
    try:
        code = app(prog_name="msd", standalone_mode=False)
        with writing(sys.stdout):
            sys.stdout.flush()
    except _Stopped:
        _fail(STOPPED)
    except BrokenPipeError:  # whoever read it, as `head` does, has seen enough
        abandon(sys.stdout)
        sys.exit(1)
    except Exception as error:
        if _Stopped.asked:
            _fail(STOPPED)
        if isinstance(error, CLICK_ERROR):
            _refuse(error)
        _fail(translated(error))
    sys.exit(code or 0)


def _refuse(error: Any) -> NoReturn:
    """An error in the command line itself, in the words of the library that reads it."""
    message = one_line(error.format_message()).rstrip(".")
    if not message:  # no verb at all: its help has been shown
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "msd"
    _fail(UsageError(f"{message[0].lower()}{message[1:]}; see `{path} --help`."))


def _fail(error: MsdError) -> NoReturn:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    try:
        sys.stdout.flush()
    except OSError:
        abandon(sys.stdout)
    with suppress(OSError):  # nobody is there to be told
        sys.stderr.write(f"{type(error).__name__}: {one_line(error)}\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
