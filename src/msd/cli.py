"""The command line: a table of verbs. Each verb's options and help are in a file of `commands/verbs`, and what it does is
imported when it runs."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Annotated

import typer

from msd import __version__
from msd.commands.options import with_options
from msd.errors import Interrupted, MsdError

VERBS = {
    "demo": "msd.commands.verbs.demo:demo",
    "recipes": "msd.commands.verbs.recipes:recipes",
    "plan": "msd.commands.verbs.plan:plan",
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

app = typer.Typer(
    name="msd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Multi-Student Distillation: one diffusion teacher, a cohort of one-step students behind a router.\n\n"
    "Start with [bold]msd demo[/] (minutes on a laptop), then use the same verbs with your own recipe.",
)
for _name, _target in VERBS.items():
    _module, _function = _target.split(":")
    app.command(_name)(with_options(getattr(importlib.import_module(_module), _function)))


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
    """Asked to stop. Not KeyboardInterrupt, which typer turns into a silent exit code 130."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def main() -> None:
    """Entry point: runs a verb; an error is one sentence on standard error and exit code 2 (1: stopped, student failed)."""
    # A spinning OpenMP barrier slows a busy machine down many times over; must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C, a scheduler, a closed terminal
        signal.signal(number, _stop)
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
