"""Standard output as it is found: shared with libraries, closed, full, ASCII; JSON is one value and nothing else."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import MSD, fails, msd
from msd.commands import show
from msd.commands.console import Output
from msd.commands.streams import one_line

CHATTY = """
import ctypes, math, os, subprocess, sys
from msd import cli
from msd.commands import show

def chatty(output):
    print("python")
    os.write(1, b"descriptor ")
    ctypes.CDLL(None).printf(b"library ")
    subprocess.run(["echo", "child"])
    output.result({"text": "\\u00d7", "numbers": [math.nan, math.inf, (1, 2.5)]})
    return []

show.list_recipes = chatty
cli.main()
"""


def run(arguments: list[str], shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in its own process, with what `shell` does to its streams."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.skipif(sys.platform != "linux", reason="printf of the C library")
def test_json_is_all_there_is_on_standard_output_whatever_libraries_print() -> None:
    done = run([sys.executable, "-c", CHATTY, "recipes", "--json"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"  # the verb's own result comes last, and only once
    for word in ("python", "descriptor", "library", "child"):
        assert word in done.stderr


def test_numbers_that_are_not_finite_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "list_recipes", lambda output: {"a": [math.nan, (math.inf, 1)], "b": "\u00d7\udcff"})
    printed = msd("recipes", "--json").stdout
    assert printed.isascii()
    assert json.loads(printed) == {"a": [None, [None, 1]], "b": "\u00d7\udcff"}


def test_an_error_with_json_leaves_standard_output_empty() -> None:
    done = msd("recipes", "nowhere", "--json", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("RecipeError: ")


@pytest.mark.parametrize("json_option", [[], ["--json"]])
def test_a_closed_standard_output_is_no_error(json_option: list[str]) -> None:
    for shell in (">&-", ">&- 2>&-", "<&- >&-"):
        done = run([*MSD, "recipes", *json_option], shell)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "--json"], ["--help"], ["--version"]])
def test_a_full_standard_output_is_one_sentence(arguments: list[str]) -> None:
    done = run([*MSD, *arguments], ">/dev/full")
    assert done.returncode == 2
    assert "No space left on device" in one_sentence(done)


def test_a_reader_that_leaves_is_no_error_worth_a_word() -> None:
    done = run([*MSD, "recipes", "digits"], "| head -1")
    assert done.stderr == ""
    assert done.stdout.startswith("recipe:")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"TERM": "dumb"},
        {"COLUMNS": "40"},
    ],
    ids=str,
)
def test_poor_terminals_get_all_of_it(environment: dict[str, str]) -> None:
    done = run([*MSD, "recipes"], **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "digits" in done.stdout
    assert "UTF8" in environment or done.stdout.isascii() or "PYTHONIOENCODING" not in environment
    if "COLUMNS" in environment:
        assert max(map(len, done.stdout.splitlines())) <= 40


@pytest.mark.parametrize("home", [None, "/proc/no/such"])
def test_no_home_is_needed_for_pictures(home: str | None, tmp_path: Path) -> None:
    """matplotlib and diffusers keep caches at home: without one they neither fail nor talk."""
    code = (
        "from msd.evaluation.pictures import bars_svg; import diffusers\n"
        "bars_svg({'a': 1.0}, 1.0, {'a': '#000000'}, 'label'); print('done')"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")}
    environment |= {} if home is None else {"HOME": home}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert "atplotlib" not in done.stderr


HOSTILE = "[bold]x[/nope] :smile: [link=a]\x1b[31m\nsecond"
HARMLESS = "[bold]x[/nope] :smile: [link=a] [31m second"


def test_text_of_users_is_neither_markup_nor_more_than_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line(HOSTILE) == HARMLESS
    output = Output()
    output.say(HOSTILE)
    output.result(None, HOSTILE)
    with output.progress(HOSTILE, 1) as advance:
        advance(1)
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == HARMLESS
    assert captured.out == HARMLESS + "\n"
    assert HARMLESS in captured.err.splitlines()[1]


def test_a_path_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "[red]run[/blue] :smile:"
    assert str(out) in msd("partition", "smoke", "--out", out).stdout
    assert str(out / "no") in fails("status", out / "no")


def test_a_recipe_with_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("summary: '[bold]s[/nope] :smile:'\n")
    assert "[bold]s[/nope] :smile:" in msd("recipes", path).stdout
