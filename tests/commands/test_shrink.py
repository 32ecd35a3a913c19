"""`msd shrink`: the table of sizes, what is chosen in it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import adm_unet, unet
from command import fails, msd
from msd.commands.shrink import selection
from msd.networks.shrink import candidates, smaller_config


def test_the_table_says_what_is_chosen_and_is_saved(tmp_path: Path) -> None:
    out = tmp_path / "sizes.json"
    printed = json.loads(msd("shrink", "digits", "--reduce", "0.88", "--out", out, "--json").stdout)
    assert printed == json.loads(out.read_text())
    assert (printed["kind"], printed["teacher"], printed["reduce"]) == ("sizes", "packaged:digits", 0.88)
    teacher, (chosen,) = printed["rows"][0], [row for row in printed["rows"] if row["chosen"]]
    assert (teacher["widths"], teacher["num_parameters"], teacher["cut"]) == ([16, 32], 173_857, 0)
    assert (chosen["widths"], chosen["num_parameters"]) == ([8, 8], 19_737)
    assert chosen["config"] == smaller_config(teacher["config"], 0.88).config
    for row in printed["rows"]:
        assert row["latency_ms"].keys() == {"1", "64"}
        assert all(taken > 0 for taken in row["latency_ms"].values())
        assert 0 < row["num_flops"] <= teacher["num_flops"]
        assert 0 < row["num_kernels"] <= teacher["num_kernels"]
    msd("shrink", "digits", "--reduce", "0", "--out", out)  # one of its own is replaced
    assert json.loads(out.read_text())["rows"][0]["chosen"]


def test_people_see_the_choice_and_how_much_is_left_out() -> None:
    shown = msd("shrink", "digits", "--reduce", "0.71").stdout
    assert "chosen" in shown
    assert "45,873" in shown
    assert "of 21 configurations" in shown


def test_a_teacher_that_is_still_to_be_trained_has_sizes_too() -> None:
    value = json.loads(msd("shrink", "smoke", "--set", "teacher.source=pretrain", "--reduce", "0.75", "--json").stdout)
    assert value["rows"][0]["widths"] == [8, 16]
    assert value["teacher"] == "pretrain"


@pytest.mark.parametrize("config", [adm_unet(), unet((32, 48, 64), 2, 16, (1, 2))])
def test_few_are_shown_and_none_that_another_nearby_makes_pointless(config: dict) -> None:
    known = candidates(config)
    for reduce in (0.42, 0.71, 0.83):
        chosen = smaller_config(config, reduce)
        shown = selection(known, chosen)
        assert shown[0] == known[0]
        assert chosen in shown
        assert 3 <= len(shown) <= 8
        assert [one.cut for one in shown] == sorted(one.cut for one in shown)


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path) -> None:
    assert "the nearest save" in fails("shrink", "digits", "--reduce", "0.1")
    assert "give a share of them below 1" in fails("shrink", "digits", "--reduce", "1")
    assert "the reduction" in fails("shrink", "digits", "--reduce=-0.5")
    assert "valid number" in fails("shrink", "digits", "--reduce", "half")
    mine = tmp_path / "mine.json"
    mine.write_text('{"kind": "letters"}')
    assert "does not hold tables of sizes" in fails("shrink", "digits", "--out", mine)
    assert mine.read_text() == '{"kind": "letters"}'
    assert "is a folder" in fails("shrink", "digits", "--out", tmp_path)
