"""Where results go: nothing of the user's is replaced or deleted, and what cannot be written is said before any work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from builders import UNIFORM, save_student
from command import fails, msd
from msd.cohort.manifest import Manifest, assemble, read_manifest
from msd.conditions.partition import Partition
from msd.errors import RunError
from msd.files import ensure_writable, probe, replacing_folder
from msd.networks.facts import FILES


def students(folder: Path, partition: Partition) -> list[Path]:
    return [save_student(folder / f"new-{part}", partition, part, seed=part + 7) for part in range(partition.num_parts)]


def test_what_someone_put_into_a_cohort_survives_its_replacement(cohort: Manifest, tmp_path: Path) -> None:
    """Files, links, empty folders; of the old cohort only its own files go."""
    (cohort.folder / "notes.txt").write_text("mine")
    (cohort.folder / "students" / "0" / "card.md").write_text("mine too")
    (cohort.folder / "students" / "1" / "plots").mkdir()
    (cohort.folder / "students" / "1" / "plots" / "a.png").write_bytes(b"picture")
    (cohort.folder / "link").symlink_to("elsewhere")
    (cohort.folder / "empty").mkdir()
    whole = Partition.whole(UNIFORM)
    assemble(cohort.folder, "again", whole, students(tmp_path, whole), recipe={})
    assert read_manifest(cohort.folder).partition.num_parts == 1
    left = sorted(path.relative_to(cohort.folder).as_posix() for path in cohort.folder.rglob("*") if not path.is_dir())
    own = ["cohort.json", *(f"students/0/{name}" for name in FILES)]
    assert left == sorted([*own, "notes.txt", "students/0/card.md", "students/1/plots/a.png", "link"])
    assert (cohort.folder / "notes.txt").read_text() == "mine"
    assert (cohort.folder / "empty").is_dir()
    assert os.readlink(cohort.folder / "link") == "elsewhere"
    assert not list(tmp_path.glob(".*"))


def test_what_is_in_the_way_of_a_student_is_not_overwritten(cohort: Manifest, tmp_path: Path) -> None:
    thirds = Partition(parts=((0, 1, 2), (3, 4, 5), (6, 7, 8, 9)), prior=UNIFORM)
    (cohort.folder / "students" / "2").mkdir()
    (cohort.folder / "students" / "2" / "config.json").write_text("mine")
    with pytest.raises(RunError, match=r"students/2/config\.json is in the way"):
        assemble(cohort.folder, "new", thirds, students(tmp_path, thirds), recipe={})
    assert (cohort.folder / "students" / "2" / "config.json").read_text() == "mine"
    assert read_manifest(cohort.folder).partition.num_parts == 2


def test_a_linked_folder_within_a_cohort_stays_a_link(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    disk = tmp_path / "disk" / "students"
    disk.parent.mkdir()
    (cohort.folder / "students").rename(disk)
    (cohort.folder / "students").symlink_to(disk)
    (disk / "notes.txt").write_text("mine")
    new = students(tmp_path, halves)
    assemble(cohort.folder, "again", halves, new, recipe={})
    assert (cohort.folder / "students").is_symlink()
    assert (disk / "1" / FILES[0]).read_bytes() == (new[1] / FILES[0]).read_bytes()
    assert (disk / "notes.txt").read_text() == "mine"
    assert read_manifest(cohort.folder).name == "again"
    assert [path.name for path in disk.parent.iterdir()] == ["students"]


def test_a_file_where_a_folder_comes_stops_the_replacement(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "students").write_text("mine")
    with pytest.raises(RunError, match="is in the way"), replacing_folder(tmp_path / "cohort") as temporary:
        (temporary / "students").mkdir()
    assert (tmp_path / "cohort" / "students").read_text() == "mine"


def test_a_probe_leaves_nothing_and_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".writable").write_text("mine")
    ensure_writable(tmp_path)
    probe(tmp_path / "not" / "there")
    assert [path.name for path in tmp_path.iterdir()] == [".writable"]
    for in_the_way in (tmp_path / ".writable", tmp_path / ".writable" / "below"):
        with pytest.raises(RunError, match=r"cannot be written \(Not a directory\)"):
            probe(in_the_way)


RUN_VERBS = [("partition",), ("pairs",), ("distill",), ("demo",), ("pretrain",), ("pretrain", "--network", "features")]


@pytest.mark.parametrize("verb", RUN_VERBS, ids=" ".join)
def test_a_foreign_folder_or_file_is_not_made_a_run(verb: tuple[str, ...], tmp_path: Path) -> None:
    """A folder with hidden files only, such as a new repository, may become one."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    name, *options = verb
    assert "is not empty (it holds chapter.tex)" in fails(name, "smoke", *options, "--out", tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    assert "is a file" in fails(name, "smoke", *options, "--out", tmp_path / "thesis" / "chapter.tex")


def test_a_folder_with_hidden_files_only_may_become_a_run(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    msd("partition", "smoke", "--out", tmp_path)
    assert (tmp_path / "recipe.json").exists()


def test_a_run_that_lost_its_recipe_is_still_a_run(tmp_path: Path) -> None:
    msd("partition", "smoke", "--out", tmp_path / "run")
    (tmp_path / "run" / "recipe.json").unlink()
    assert "no run's folder" in fails("partition", "smoke", "--out", tmp_path / "run")
    (tmp_path / "run" / "jobs").mkdir()
    msd("partition", "smoke", "--out", tmp_path / "run")
    assert (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.parametrize("name", ["cohort", "report", "rows", "jobs", "evaluations"])
def test_what_cannot_be_written_at_the_end_is_said_at_the_beginning(name: str, tmp_path: Path) -> None:
    msd("partition", "smoke", "--out", tmp_path / "run")
    (tmp_path / "run" / name).write_text("in the way")
    assert f"{name} is a file" in fails("demo", "smoke", "--out", tmp_path / "run")
    assert not list((tmp_path / "run").glob("jobs/*"))


@pytest.mark.parametrize("name", ["photo.png", "data.npz"])
def test_samples_replace_samples_and_nothing_else(cohort: Manifest, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    for _ in range(2):
        msd("sample", cohort.folder, "--num", 1, "--out", out)
    if out.suffix == ".png":
        Image.new("L", (4, 4)).save(out)
    else:
        out.write_bytes(b"mine")
    before = out.read_bytes()
    assert "exists and does not hold samples that msd wrote" in fails("sample", cohort.folder, "--num", 1, "--out", out)
    assert out.read_bytes() == before
    os.remove(out)
    os.mkfifo(out)
    assert "exists and does not hold samples" in fails("sample", cohort.folder, "--out", out)


@pytest.mark.parametrize("label", ["10", "-1", "9" * 30])
def test_samples_of_a_class_that_there_is_not_are_refused(cohort: Manifest, tmp_path: Path, label: str) -> None:
    sentence = fails("sample", cohort.folder, "--labels", f"3,{label}", "--out", tmp_path / "a.png")
    assert f"class {label} is outside the partition; classes are 0 to 9" in sentence


def test_an_evaluation_replaces_results_only_and_says_so_before_it_measures(cohort: Manifest, tmp_path: Path) -> None:
    """This cohort has no teacher to be measured with: what is said is said before it would be looked for."""
    notes = tmp_path / "metrics.json"
    notes.write_text(json.dumps({"rows": "mine"}))
    assert "does not hold an evaluation's results that msd wrote" in fails("eval", cohort.folder, "--out", notes)
    assert "is a folder" in fails("eval", cohort.folder, "--out", tmp_path)
    assert "cannot be written" in fails("eval", cohort.folder, "--out", notes / "x.json")
    (tmp_path / "cohort-metrics.json").write_text("{}")
    assert "cohort-metrics.json exists" in fails("eval", cohort.folder)
    assert json.loads(notes.read_text()) == {"rows": "mine"}


def test_a_report_goes_into_no_foreign_folder(tmp_path: Path) -> None:
    msd("partition", "smoke", "--out", tmp_path / "run")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    assert "is not empty (it holds index.html)" in fails("report", tmp_path / "run", "--out", tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "mine"
