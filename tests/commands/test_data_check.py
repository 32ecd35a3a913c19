"""`msd data check`: what a source holds, as a table, as sentences and as JSON; and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import fails, msd
from msd.cli import DATA_VERBS
from msd.commands.data import counted, remarks, section
from msd.data.findings import Findings
from msd.data.images import load_images
from msd.errors import DataError, RecipeError
from msd.recipe import DataSection


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of 20 and 60 images, of two sizes, one of them in colour."""
    generator = np.random.default_rng(0)
    for name, count in (("cat", 20), ("dog", 60)):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 256, (20, 24) if index % 2 else (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "pictures" / "cat" / "red.png")
    return tmp_path / "pictures"


def findings(classes: dict[str, int], damaged: tuple[str, ...] = ()) -> Findings:
    return Findings("x", "class folders", {}, sum(classes.values()), classes, {"8x8": 1}, {"grey": 1}, 1, damaged, "0" * 64)


@pytest.mark.parametrize("verb", DATA_VERBS)
def test_every_verb_of_the_group_has_help_with_an_example(verb: str) -> None:
    assert f"Example: msd data {verb}" in " ".join(msd("data", verb, "--help").stdout.split())


def test_the_json_says_everything_once(pictures: Path) -> None:
    value = json.loads(msd("data", "check", pictures, "--json").stdout)
    assert value["layout"] == "class folders"
    assert value["classes"] == {"cat": 21, "dog": 60}
    assert value["num_images"] == sum(value["sizes"].values()) == sum(value["kinds"].values()) == 81
    assert value["sizes"] == {"16x16": 41, "24x20": 40}
    assert value["read_as"] == {"size": 32, "channels": 3, "fit": "crop", "background": "white"}
    assert value["damaged"] == []
    data = DataSection(source=str(pictures), size=32)
    assert value["hash"] == load_images(data).hash
    assert Path(value["cache"]).is_dir()


def test_people_see_a_table_and_sentences(pictures: Path) -> None:
    done = msd("data", "check", pictures)
    said = " ".join(done.stderr.split())
    assert "cat" in done.stdout
    assert "74.1%" in done.stdout
    for sentence in ("81 images of 2 classes (class folders)", "16x16 (41), 24x20 (40)", "read as 32x32 pixels, colour"):
        assert sentence in said
    assert "dog occurs 2.9 times as often as cat" in said


def test_values_of_a_recipe_change_how_images_are_read(pictures: Path) -> None:
    arguments = ("--set", "data.size=8", "--set", "data.channels=1", "--set", "data.fit=stretch", "--json")
    value = json.loads(msd("data", "check", pictures, *arguments).stdout)
    assert value["read_as"] == {"size": 8, "channels": 1, "fit": "stretch", "background": "white"}


def test_damaged_files_are_refused_by_name_and_counted_where_they_may_be_skipped(pictures: Path) -> None:
    for index in range(12):
        (pictures / "dog" / f"broken-{index}.png").write_bytes((pictures / "dog" / "0.png").read_bytes()[:50])
    refused = fails("data", "check", pictures)
    assert refused.startswith("DataError: ")
    assert "data.skip_damaged=true" in refused
    skipping = ("--set", "data.skip_damaged=true")
    value = json.loads(msd("data", "check", pictures, *skipping, "--json").stdout)
    assert len(value["damaged"]) == 12
    assert all("dog/broken-" in entry for entry in value["damaged"])
    said = msd("data", "check", pictures, *skipping).stderr
    assert said.count("damaged: ") == 10
    assert "and 2 more damaged files" in said


def test_packaged_images_have_findings_too() -> None:
    value = json.loads(msd("data", "check", "packaged:digits", "--json").stdout)
    assert (value["num_images"], len(value["classes"]), value["cache"]) == (1797, 10, None)


def test_what_may_surprise_is_said_in_sentences() -> None:
    assert remarks(findings({"a": 100, "b": 110})) == []
    (uneven,) = remarks(findings({"a": 1000, "b": 100}))
    assert "a occurs 10 times as often as b (1,000 and 100 images)" in uneven
    few = " ".join(remarks(findings({str(number): 3 for number in range(9)})))
    assert "9 of 9 classes have fewer than 20 images (0, 1, 2, 3, 4 and 4 more)" in few
    assert "2 files could not be read" in " ".join(remarks(findings({"a": 50, "b": 50}, ("x: broken", "y: broken"))))


def test_counts_name_the_first_few() -> None:
    assert counted({"a": 1000, "b": 2, "c": 1}, 2) == "a (1,000), b (2) and 1 more"
    assert counted({}) == ""


@pytest.mark.parametrize("override", ["dm.weight=1", "data=1", "data.", "data.size.x=1", "size=8", "data.siez=8", "x" * 500])
def test_only_values_about_images_can_be_set(override: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="says nothing about the images"):
        section(tmp_path, [override])


@pytest.mark.parametrize("override", ["data.size=-1", "data.fit=round", "data.channels=2", "data.size"])
def test_values_are_checked_as_in_a_recipe(override: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        section(tmp_path, [override])


def test_what_is_no_source_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        section(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("empty", "text.txt", "loop"):
        assert str(tmp_path / name) in fails("data", "check", tmp_path / name)
    assert "missing argument 'SOURCE'" in fails("data", "check")
