"""Writing that survives being killed, and leftovers that are ours alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msd import files
from msd.errors import RunError
from msd.files import remove_leftovers, replacing, replacing_folder


def fill(folder: Path, text: str) -> None:
    for name in ("first", "second"):
        (folder / name).write_text(text)


def content(folder: Path) -> set[str]:
    """The texts of a folder's two files: one if it is whole."""
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    return {path.read_text() for path in folder.iterdir()}


@pytest.fixture
def gone() -> int:
    """The number of a process that no longer runs."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_is_made_and_replaced(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "cohort") as temporary:
            fill(temporary, text)
        assert content(tmp_path / "cohort") == {text}
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "cohort") as temporary:
        fill(temporary, "old")

    def fail() -> None:
        with replacing_folder(tmp_path / "cohort") as temporary:
            (temporary / "first").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert content(tmp_path / "cohort") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(RunError, match="is a file where a folder is to be written"), replacing_folder(tmp_path / "notes"):
        pass
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A run's folder may lie on another disk."""
    with replacing_folder(tmp_path / "disk" / "real") as temporary:
        fill(temporary, "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with replacing_folder(tmp_path / "link") as temporary:
        fill(temporary, "new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "link") == {"new"}
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real"]


WRITER = """
import sys
from pathlib import Path
from msd.files import replacing_folder
number = 0
while True:
    number += 1
    with replacing_folder(Path(sys.argv[1])) as temporary:
        for name in ("first", "second"):
            (temporary / name).write_text(str(number))
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="two names are exchanged in one step on Linux only")
def test_killed_at_any_moment_the_folder_is_whole(tmp_path: Path) -> None:
    """SIGKILL to a process that replaces a folder over and over: what is found is always all of one version."""
    path = tmp_path / "cohort"
    chance = random.Random(0)
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=os.environ)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.01))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert len(content(path)) == 1
        remove_leftovers(tmp_path)
        assert [found.name for found in tmp_path.iterdir()] == ["cohort"]


def test_where_names_cannot_be_exchanged_it_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "exchange", lambda first, second: False)
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "cohort") as temporary:
            fill(temporary, text)
        assert content(tmp_path / "cohort") == {text}
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def between_two_renames(folder: Path, pid: int) -> None:
    """What a kill leaves there, where names cannot be exchanged."""
    for kind in ("tmp", "old"):
        (folder / f".cohort.{pid}.{kind}").mkdir()
        fill(folder / f".cohort.{pid}.{kind}", kind)


def test_an_orphaned_folder_comes_back_by_cleaning_up(tmp_path: Path, gone: int) -> None:
    between_two_renames(tmp_path, gone)
    remove_leftovers(tmp_path)
    assert content(tmp_path / "cohort") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_an_orphaned_folder_comes_back_before_it_is_replaced(tmp_path: Path, gone: int) -> None:
    """So that a failure of the next attempt does not lose it either."""
    between_two_renames(tmp_path, gone)
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "cohort"):
        raise ZeroDivisionError
    assert content(tmp_path / "cohort") == {"old"}


def test_only_our_own_leftovers_go(tmp_path: Path, gone: int) -> None:
    """Names, kinds and processes: a file that fits in all but one of them stays."""
    deep = tmp_path / "jobs" / "student-0"
    (deep / f".student.{gone}.tmp").mkdir(parents=True)
    (deep / f".student.{gone}.tmp" / "weights").touch()
    (deep / f".status.json.{gone}.tmp").touch()
    stays = [
        f".status.json.{os.getpid()}.tmp",
        f"status.json.{gone}.tmp",
        f".status.json.{gone}.bak",
        ".status.json.tmp",
        ".status.json.x12.tmp",
        f".{gone}.tmp",
        "status.json",
    ]
    for name in stays:
        (deep / name).touch()
    removed = remove_leftovers(tmp_path)
    assert sorted(path.name for path in removed) == [f".status.json.{gone}.tmp", f".student.{gone}.tmp"]
    assert sorted(path.name for path in deep.iterdir()) == sorted(stays)


def test_cleaning_up_does_not_leave_the_folder(tmp_path: Path, gone: int) -> None:
    """A link out of it is not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f".a.{gone}.tmp").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(outside)
    assert remove_leftovers(tmp_path / "run") == []
    assert remove_leftovers(tmp_path / "nowhere") == []
    assert (outside / f".a.{gone}.tmp").exists()


def test_a_file_is_written_or_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
