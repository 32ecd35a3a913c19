"""Whatever ends a command is one sentence with the right exit code; tracebacks are for --debug."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
import yaml

from command import fails, msd
from msd.commands import show
from msd.commands.failures import translated
from msd.errors import InternalError, LibraryError, MachineError, MsdError, RunError


def raised(action) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError


FOREIGN = {
    "yaml": (lambda: yaml.safe_load("{\n a: [\n"), LibraryError, "yaml could not do its part"),
    "torch": (lambda: torch.zeros(2) @ torch.zeros(3), InternalError, "a defect of msd"),
    "torch, within": (lambda: torch.load(Path(__file__), weights_only=True), LibraryError, "torch could not do its part"),
    "memory": (lambda: torch.empty(2**55), MachineError, "the memory ran out"),
    "a file": (lambda: Path("/nowhere/at/all").read_text(), MachineError, "/nowhere/at/all refuses (No such file"),
    "text": (lambda: "\udcff".encode(), MachineError, "is not valid Unicode"),
    "a package": (lambda: __import__("no_such_package"), LibraryError, "a package is missing or broken"),
    "ours": (lambda: {}["key"], InternalError, "a defect of msd (KeyError: 'key')"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_errors_become_sentences(case: str) -> None:
    action, kind, words = FOREIGN[case]
    error = translated(raised(action))
    assert type(error) is kind
    assert words in str(error)
    assert "\n" not in str(error)
    assert str(error).endswith(".")
    assert error.exit_code == 2


def test_our_own_errors_stay_as_they_are() -> None:
    error = RunError("x is missing; make it.")
    assert translated(error) is error


def test_a_full_disk_is_told_with_its_path() -> None:
    error = translated(OSError(errno.ENOSPC, "No space left on device", "/a/b"))
    assert str(error) == "/a/b refuses (No space left on device); free some space, and run the same command again."


def test_a_long_message_is_cut() -> None:
    assert len(str(translated(ValueError("x" * 10_000)))) < 500


@pytest.mark.parametrize("error", [KeyError("k"), RuntimeError("a\nb"), RecursionError(), ZeroDivisionError("\x1b[31m")])
def test_the_unforeseen_is_one_sentence_and_a_traceback_only_with_debug(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(output: object) -> None:
        raise error

    monkeypatch.setattr(show, "list_recipes", broken)
    assert "a defect of msd" in fails("recipes")
    assert fails("recipes", "--json")
    assert "Traceback" in msd("recipes", "--debug", code=2).stderr


def test_an_error_of_several_lines_is_told_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(output: object) -> None:
        raise MsdError("first\n\n  second [bold]third[/nope]")

    monkeypatch.setattr(show, "list_recipes", broken)
    assert msd("recipes", code=2).stderr == "MsdError: first second [bold]third[/nope]\n"


USAGE = {
    "unknown option": (("demo", "--foo"), "no such option: --foo"),
    "unknown verb": (("distil",), "no such command 'distil'"),
    "missing argument": (("sample",), "missing argument 'COHORT'"),
    "missing value": (("demo", "--out"), "option '--out' requires an argument"),
    "not a number": (("sample", "x", "--num", "a"), "invalid value for '--num'"),
    "markup": (("demo", "--[red]x[/y]"), "--[red]x[/y]"),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_wrong_command_line_is_one_sentence(case: str) -> None:
    arguments, words = USAGE[case]
    sentence = fails(*arguments)
    assert sentence.startswith("UsageError: ")
    assert words in sentence
    assert "--help`." in sentence


def test_no_verb_at_all_shows_the_help() -> None:
    assert "distill" in msd(code=2).stdout
