"""The reader: what it opens, what it takes for JSON and YAML, and which names it lets lead anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damages import complaint
from msd.errors import RunError
from msd.reading import (
    Broken,
    Kind,
    Name,
    RelativePath,
    inside,
    open_regular,
    parse_json,
    read_json,
    set_aside,
    validated,
)
from msd.reading_yaml import parse_yaml

Damage = Callable[[Path], object]
Read = Callable[[Path], object]


def test_nothing_set_aside_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "status.json"
    for text in "abc":
        path.write_text(text)
        set_aside(path, RunError("status.json is broken; remove it."))
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        "status.json.broken": "a",
        "status.json.broken-1": "b",
        "status.json.broken-2": "c",
    }
    assert "status.json is broken; it was set aside as status.json.broken-2, and msd" in capsys.readouterr().err


def test_a_pipe_is_not_even_opened(tmp_path: Path) -> None:
    """Its writer, if there is one, would be ended by a reader that comes and goes."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Broken, match="not a file but a pipe"):
        open_regular(tmp_path / "pipe")


@given(st.text(max_size=40))
@settings(max_examples=60)
def test_any_text_is_json_or_broken(text: str) -> None:
    if raised := complaint(parse_json, text):
        assert "\n" not in str(raised)
    else:
        assert parse_json(text) == json.loads(text)


@given(st.text(alphabet="ab:-&*![]{},#'\"|>%@\n\t ?<=~019.\x00\u2028é", max_size=40))
def test_any_text_is_yaml_or_broken(text: str) -> None:
    if raised := complaint(parse_yaml, text):
        assert "\n" not in str(raised)
    else:
        json.dumps(parse_yaml(text), allow_nan=False)


NINE = ["a: &a [x, x, x, x, x, x, x, x, x]"] + [
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
]

MERGED = ["a: &a {x: 1}", *(line.replace("[", "{<<: [").replace("]", "]}") for line in NINE[1:])]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\n".join(NINE), "its aliases repeat too much"),
        (
            "\n".join(NINE).replace("[x, x, x, x, x, x, x, x, x]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}"),
            "repeat",
        ),
        ("&a [*a]", "stands for itself"),
        ("a: &a {b: {<<: *a}}", "stands for itself"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("!!python/object/apply:os.system ['touch ran']", r"tags \(!\) are not allowed on line 1"),
        ("a: !!timestamp x", "tags"),
        ("a: 2024-01-01", "2024-01-01 is neither text nor a number, so write it in quotes"),
        ("a: 2024-99-01", "a date or a number that there is not"),
        ("a: .nan", "nan is not a number"),
        ("a: [.inf]", "inf is not a number"),
        (f"a: {'9' * 5_000}", "a date or a number that there is not"),
        (f"a: 0x{'f' * 50}", "more than 64 bits"),
        ("1: a", "the key 1 is not text"),
        ("[a]: b", "a key is a list or a mapping"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("a: 1\nb: {c: 1, c: 2}", "'c' is there twice on line 2"),
    ],
)
def test_yaml_neither_runs_nor_explodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Broken, match=why):
        parse_yaml(text)
    assert not list(tmp_path.iterdir())


def test_what_an_alias_repeats_is_not_shared() -> None:
    """Changing one of two sections that a recipe writes once must not change the other."""
    value = parse_yaml("a: &a {b: [1]}\nc: *a\n")
    value["a"]["b"].append(2)
    assert value["c"] == {"b": [1]}


SEPARATORS = ["", ".", "..", "/", "/etc/passwd", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0", "a\n", "x" * 256]


@pytest.mark.parametrize("text", SEPARATORS)
def test_a_path_is_no_name(text: str) -> None:
    for kind in (Name, RelativePath):
        with pytest.raises(RunError, match="should be a"):
            validated(text, kind, Kind("a name", "mend it"), source="x")  # pyright: ignore[reportArgumentType]


def test_names_and_relative_paths() -> None:
    kind = Kind("a name", "mend it")
    for name in ("a", "..a", "step-1.pt", "é b"):
        assert validated(name, Name, kind, source="x") == name  # pyright: ignore[reportArgumentType]
    assert validated("a/b.c", RelativePath, kind, source="x") == "a/b.c"  # pyright: ignore[reportArgumentType]
    with pytest.raises(RunError, match="plain name"):
        validated("a/b", Name, kind, source="x")  # pyright: ignore[reportArgumentType]


def test_links_out_of_a_folder_are_not_inside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "mine").write_text("x")
    (folder / "out").symlink_to(tmp_path)
    (folder / "own").write_text("x")
    (folder / "link").symlink_to("own")
    (folder / "loop").symlink_to("loop")
    assert inside(folder, "own") == folder / "own"
    assert inside(folder, "link") == folder / "link"
    assert inside(folder, "out/mine") is None
    assert inside(folder, "loop/x") is None


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big.json"
    path.write_text("[" + "0," * 50 + "0]")
    with pytest.raises(RunError, match=r"big\.json \(a list\) cannot be read \(it is larger than 100 bytes\); mend it\."):
        read_json(path, Kind("a list", "mend it"), 100)
    assert len(read_json(path, Kind("a list", "mend it"), 103)) == 51
