"""A DDPM++ or NCSN++ checkpoint on the command line: described, and all the way through every stage to a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import fails, msd
from edm_files import save_edm
from song_files import NCSNPP, song_network

ADM = "{num_updates: 1, batch_size: 4, critic_turns: 1, discriminator_warmup: 1, regression: {batch_size: 4}}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_edm(tmp_path / "tiny-ve.pkl", song_network(**NCSNPP))


def options(checkpoint: Path, *changes: str) -> list[str]:
    return [word for change in (f"teacher.source={checkpoint}", *changes) for word in ("--set", change)]


def test_it_is_described_as_file_and_as_folder(checkpoint: Path, tmp_path: Path) -> None:
    wanted = "SongUNet (NCSN++), 8-16 channels, 1 block a level, attention at 4"
    value = json.loads(msd("teacher", "inspect", checkpoint, "--json").stdout)
    assert (value["network"], value["num_conditions"], value["pixel_shape"]) == (wanted, 10, [1, 8, 8])
    assert "converted once" in value["loaded_as"]
    folder = tmp_path / "teacher"
    msd("teacher", "convert", checkpoint, folder)
    converted = json.loads(msd("teacher", "inspect", folder, "--json").stdout)
    assert (converted["network"], converted["num_parameters"]) == (wanted, value["num_parameters"])


def test_it_goes_all_the_way_to_a_cohort(checkpoint: Path, tmp_path: Path) -> None:
    """Pairs, all three stages with the discriminator on its features, cohort, samples."""
    run, grid = tmp_path / "run", tmp_path / "grid.png"
    changes = (
        *("stages=[tsm, dm, adm]", "tsm={num_updates: 1, batch_size: 4}", f"adm={ADM}"),
        *("dm={num_updates: 2, batch_size: 4, regression: {batch_size: 4}}", "pairs={num_pairs: 64, shard_size: 64}"),
        *("pairs.solver.num_steps=2", "partition.num_parts=2", "rows=[]"),
    )
    msd("distill", "smoke", *options(checkpoint, *changes), "--out", run)
    student = json.loads((run / "cohort" / "students" / "0" / "denoiser.json").read_text())
    assert (student["network"], student["role"]) == ("song-unet", "student")
    assert [stage["stage"] for stage in student["stages"]] == ["tsm", "dm", "adm"]
    msd("sample", run / "cohort", "--labels", "3,7", "--num", "2", "--out", grid)
    assert grid.is_file()


def test_what_it_cannot_be_is_said_before_any_work(checkpoint: Path) -> None:
    assert "no smaller network is known of a teacher of kind 'song-unet'" in fails(
        "plan", "smoke", *options(checkpoint, "student.reduce=0.4")
    )
    assert "no smaller network is known" in fails("shrink", "smoke", *options(checkpoint), "--reduce", "0.4")
    taps = fails("plan", "smoke", *options(checkpoint, "stages=[dm, adm]", "adm.tap=down.5"))
    assert "no tap 'down.5'; it has down.0, down.1, bottleneck, up.0, up.1" in taps
