"""`msd teacher`: what a checkpoint is, the same as a folder, what it makes; and a checkpoint all the way to a cohort."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from command import fails, msd
from edm_files import edm_network, save_edm
from msd.cli import TEACHER_VERBS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_edm(tmp_path_factory.mktemp("edm") / "tiny-edm.pkl", edm_network())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("verb", TEACHER_VERBS)
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: msd teacher {verb}" in " ".join(msd("teacher", verb, "--help").stdout.split())


def test_a_file_is_described_without_being_converted(checkpoint: Path, tmp_path: Path) -> None:
    value = json.loads(msd("teacher", "inspect", checkpoint, "--json").stdout)
    assert (value["format"], value["num_parameters"], value["num_conditions"]) == ("EDM pickle", 5_594_241, 10)
    assert value["network"] == "UNet2DModel, 128-128 channels, 1 block a level, attention at 4"
    assert (value["pixel_shape"], value["sigma_min"], value["sigma_max"]) == ([1, 8, 8], 0.002, 80)
    assert value["parameterisation"] == {"kind": "edm", "sigma_data": 0.5}
    assert value["licence"] == "CC BY-NC-SA 4.0"
    assert any("--licence" in doubt for doubt in value["doubts"])
    assert not (tmp_path / "cache").exists()
    shown = msd("teacher", "inspect", checkpoint).stdout
    assert "5,594,241" in shown
    assert "CC BY-NC-SA 4.0" in shown


def test_a_packaged_teacher_is_described_by_its_classes() -> None:
    value = json.loads(msd("teacher", "inspect", "packaged:fashion", "--json").stdout)
    assert value["classes"][:2] == ["t-shirt", "trouser"]
    assert value["doubts"] == []
    assert "t-shirt, trouser" in msd("teacher", "inspect", "packaged:fashion").stdout


def test_a_file_becomes_a_folder_that_is_a_teacher(checkpoint: Path, tmp_path: Path) -> None:
    folder, grid = tmp_path / "teacher", tmp_path / "grid.png"
    msd("teacher", "convert", checkpoint, folder, "--licence", "my own")
    value = json.loads(msd("teacher", "inspect", folder, "--json").stdout)
    assert (value["licence"], value["origin"]["file"]) == ("my own", "tiny-edm.pkl")
    msd("teacher", "convert", checkpoint, folder)  # one of its own is replaced
    told = json.loads(
        msd(
            "teacher", "sample", folder, "--labels", "3,7", "--num", "2", "--solver", "euler2", "--out", grid, "--json"
        ).stdout
    )
    assert (told["num_images"], told["evaluations"]) == (4, 2)
    with Image.open(grid) as picture:
        assert picture.size[0] > picture.size[1] / 2


def test_a_checkpoint_goes_all_the_way_to_a_cohort(checkpoint: Path, tmp_path: Path) -> None:
    """Named in a recipe as it is; what is made of it carries its licence and the file's checksum."""
    run, grid = tmp_path / "run", tmp_path / "grid.png"
    changes = {
        "teacher.source": checkpoint,
        "partition.num_parts": 2,
        "pairs.num_pairs": 40,
        "pairs.solver.num_steps": 2,
        "dm.num_updates": 4,
        "dm.batch_size": 4,
        "dm.regression.batch_size": 4,
        "rows": "[]",
    }
    msd("distill", "digits", *(word for item in changes.items() for word in ("--set", f"{item[0]}={item[1]}")), "--out", run)
    manifest = json.loads((run / "cohort" / "cohort.json").read_text())
    assert manifest["teacher"]["licence"] == "CC BY-NC-SA 4.0"
    assert manifest["teacher"]["origin"]["format"] == "EDM pickle"
    assert len(manifest["teacher"]["origin"]["sha256"]) == 64
    msd("sample", run / "cohort", "--labels", "3,7", "--num", "2", "--out", grid)
    assert grid.is_file()


def test_what_is_no_teacher_is_one_sentence_and_nothing_is_written(checkpoint: Path, tmp_path: Path) -> None:
    evil, folder, taken = tmp_path / "evil.pkl", tmp_path / "teacher", tmp_path / "taken"

    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    evil.write_bytes(pickle.dumps({"ema": Evil()}))
    for words in (("inspect", evil), ("convert", evil, folder), ("sample", evil, "--out", tmp_path / "grid.png")):
        assert "asks for posix.mkdir, which no weights need, so nothing of it was run" in fails("teacher", *words)
    assert "asks for posix.mkdir" in fails("distill", "digits", "--set", f"teacher.source={evil}", "--out", tmp_path / "run")
    assert "is not there; give a checkpoint" in fails("teacher", "convert", tmp_path / "nowhere.pkl", folder)
    assert "there is no solver 'rk'" in fails("teacher", "sample", "packaged:digits", "--solver", "rk4")
    assert "does not end in .png" in fails("teacher", "sample", "packaged:digits", "--out", tmp_path / "grid.gif")
    assert "is not a teacher's folder" in fails("teacher", "inspect", tmp_path)
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert "is not empty (it holds mine.txt)" in fails("teacher", "convert", checkpoint, taken)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["evil.pkl", "taken"]
