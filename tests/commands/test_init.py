"""`msd init`: from a source of images to a recipe that is accepted, whatever the images are called. The clock is made up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from command import fails, msd
from msd.commands import init as module
from msd.commands.budget import DM_BATCH
from msd.commands.data import chosen_size
from msd.commands.init import located, run_name
from msd.commands.recipe_text import Line, Part, comment, recipe_text
from msd.commands.timing import probing
from msd.commands.timing_probe import Question
from msd.data.sources import Peek
from msd.networks.build import build_unet, unet_config
from msd.reading_yaml import parse_yaml
from msd.recipe import DataSection, load_recipe


class FakeProbe:
    num_processes, start = 2, 3.0

    def ask(self, question: Question) -> dict[str, float]:
        width = question.network["block_out_channels"][0]
        update = 4e-6 * width * question.size**2
        return {
            "num_parameters": 700 * width**2, "teacher_update": update, "evaluation": update / 200,
            "regression_update": update / 2, "full_update": 2 * update, "busy": 1.0, "spent": 0.1,
        }  # fmt: skip


@pytest.fixture(autouse=True)
def _fake_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def probing(num_processes: int) -> Iterator[FakeProbe]:
        yield FakeProbe()

    monkeypatch.setattr(module, "probing", probing)
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "cache"))


def write_images(folder: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    """A folder of class folders of PNGs, each picture another."""
    generator = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_images(tmp_path / "pictures", {"cat": 12, "dog": 30})


def test_the_recipe_is_accepted_by_every_verb_that_reads_one(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    value = json.loads(msd("init", pictures, "--budget", "30m", "--out", out, "--json").stdout)
    recipe = load_recipe(out)
    assert value["name"] == recipe.name == "mine"
    assert recipe.data.source == str(pictures.resolve())
    assert (recipe.teacher.source, recipe.evaluation.features, recipe.evaluation.reference) == (
        "pretrain",
        "classifier",
        "data",
    )
    assert (recipe.data.size, recipe.partition.num_parts) == (8, 2)
    assert recipe.pretrain.num_updates == value["choice"]["pretrain.num_updates"]
    assert recipe.dm.num_updates == value["choice"]["dm.num_updates"]
    assert list(recipe.rows) == value["choice"]["rows"]
    assert value["found"]["classes"] == {"cat": 12, "dog": 30}
    assert 0 < value["expected_seconds"]["all"] <= 1800
    msd("recipes", out)
    planned = json.loads(msd("plan", out, "--json").stdout)
    assert "teacher" in [job["name"] for job in planned["jobs"]]


def test_every_section_and_why_it_is_so_stands_in_the_file(pictures: Path, tmp_path: Path) -> None:
    msd("init", pictures, "--out", tmp_path / "mine.yaml")
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    wanted = "name summary cost seed device data network teacher pretrain partition student pairs dm rows evaluation fleet"
    assert content.keys() == set(wanted.split())
    for said in ("42 images", "cat (12), dog (30)", "8x8 (42)", "Expected, of a budget of 30m", "<- chosen", "not tuned"):
        assert said in text
    assert max(map(len, text.splitlines())) <= 125
    assert content["data"]["source"] == "pictures"


def test_the_default_file_is_named_after_the_source(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures.parent)
    assert "wrote pictures.yaml; next: msd demo pictures.yaml --out runs/pictures" in msd("init", "pictures").stdout
    assert load_recipe("pictures.yaml").name == "pictures"


def test_a_file_that_is_there_is_never_replaced(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    out.write_text("name: precious")
    assert "mine.yaml is there already; choose another name with --out" in fails("init", pictures, "--out", out)
    link = tmp_path / "link.yaml"
    link.symlink_to(tmp_path / "nowhere.yaml")
    assert "is there already" in fails("init", pictures, "--out", link)
    assert out.read_text() == "name: precious"
    assert not (tmp_path / "nowhere.yaml").exists()
    assert not list(tmp_path.glob(".*"))


NAMES = ["a: b", "# no comment", 'it\'s "quoted"', "- dash", "{brace}", "*alias", "!tag", "猫", "emoji 🐈", "100%", "null"]


def test_names_of_classes_cannot_break_the_file(tmp_path: Path) -> None:
    """Nor add keys to it: every one of them ends up in a comment of one line."""
    source = write_images(tmp_path / "weird: [x\n#", dict.fromkeys(NAMES, 3))
    msd("init", source, "--out", tmp_path / "mine.yaml")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert Path(recipe.data.source) == source.resolve()
    assert recipe.partition.num_parts == 4
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "猫" in text


@settings(max_examples=40)
@example("", "\xa0", "")
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_said_and_set_reads_back(said: str, value: str, why: str) -> None:
    text = recipe_text(
        [said], [Part("", [Line("name", value, why)], about=said), Part("data", [Line("source", value, why)])]
    )
    assert parse_yaml(text) == {"name": value, "data": {"source": value}} or not _is_yaml(value)


def _is_yaml(value: str) -> bool:
    """Whether YAML can hold the text at all: lone surrogates and some controls it cannot, even escaped."""
    try:
        return parse_yaml(yaml.safe_dump(value, allow_unicode=True)) == value
    except ValueError:
        return False


@given(st.one_of(st.integers(-(2**62), 2**62), st.booleans(), st.none(), st.floats(1e-9, 1e9), st.lists(st.integers(0, 99))))
def test_values_keep_their_type(value: Any) -> None:
    read = parse_yaml(recipe_text([], [Part("", [Line("key", value, "why")])]))["key"]
    if isinstance(value, float):
        assert read == pytest.approx(value, rel=1e-5)
        assert isinstance(read, int | float)
    else:
        assert read == value
        assert type(read) is type(value)


def test_a_comment_is_cut_into_lines_and_loses_what_steers_a_terminal() -> None:
    lines = comment("word " * 60 + "\x1b[2J\nkey: 1")
    assert len(lines) > 2
    assert all(line.startswith("#") and len(line) <= 120 and line.isprintable() for line in lines)


def test_a_path_that_no_text_holds_is_told(tmp_path: Path) -> None:
    source = write_images(tmp_path / os.fsdecode(b"pictures-\xff"), {"a": 3, "b": 3})
    assert "rename it" in fails("init", source, "--out", tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def look(sizes: dict[str, int]) -> Peek:
    return Peek("x", "class folders", (), {"a": 1}, 1, True, 1, sizes, {"grey": 1}, 1, ())


@pytest.mark.parametrize(
    ("sizes", "size", "fit"),
    [
        ({"8x8": 9}, 8, "crop"),
        ({"28x28": 9}, 32, "pad"),
        ({"5x5": 9}, 8, "pad"),
        ({"64x64": 9}, 64, "crop"),
        ({"60x60": 9}, 64, "pad"),
        ({"65x65": 9}, 32, "crop"),
        ({"30x40": 9}, 32, "crop"),
        ({"28x28": 9, "30x30": 1}, 32, "crop"),
        ({}, 32, "crop"),
    ],
)
def test_the_size_is_the_images_own_where_a_network_takes_it(sizes: dict[str, int], size: int, fit: str) -> None:
    chosen = chosen_size(DataSection(source="/x"), look(sizes))
    assert (chosen.size, chosen.fit) == (size, fit)


def test_a_size_that_is_asked_for_stays() -> None:
    asked = DataSection(source="/x", size=16)
    assert chosen_size(asked, look({"28x28": 9})) == asked
    assert chosen_size(DataSection(source="/x", size=32), look({"28x28": 9})).fit == "pad"
    assert chosen_size(DataSection(source="/x", size=64), look({"28x28": 9})).fit == "crop"
    stretched = chosen_size(DataSection(source="/x", fit="stretch"), look({"28x28": 9}))
    assert (stretched.size, stretched.fit) == (32, "stretch")


def test_padding_has_the_colour_of_the_images_edges(tmp_path: Path) -> None:
    source = tmp_path / "strokes"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.zeros((28, 28), np.uint8)
            pixels[10:18, 5 + index : 15] = 255
            Image.fromarray(pixels).save(source / name / f"{index}.png")
    msd("init", source, "--out", tmp_path / "a.yaml")
    data = load_recipe(tmp_path / "a.yaml").data
    assert (data.size, data.fit, data.background) == (32, "pad", "black")
    msd("init", source, "--set", "data.background=red", "--out", tmp_path / "b.yaml")
    assert load_recipe(tmp_path / "b.yaml").data.background == "red"


def test_a_rare_class_is_told_and_planned_for(tmp_path: Path) -> None:
    source = write_images(tmp_path / "uneven", {"common": 60, "rare": 1})
    text_of = tmp_path / "mine.yaml"
    msd("init", source, "--out", text_of)
    recipe = load_recipe(text_of)
    assert "common occurs 60 times as often as rare" in text_of.read_text().replace("\n# ", " ")
    assert recipe.dm.regression.with_replacement or recipe.pairs.num_pairs / 61 >= DM_BATCH
    msd("plan", text_of)


BAD = {
    "nothing there": (("nowhere",), "DataError: there is no"),
    "no budget": (("pictures", "--budget", "long"), "is not a time"),
    "too short": (("pictures", "--budget", "1s"), "is too short for images of 8x8"),
    "a size of no network": (("pictures", "--size", "30"), "choose 32"),
    "a size of nothing": (("pictures", "--size", "0"), "choose 8"),
    "size by --set": (("pictures", "--set", "data.size=12"), "fits no network"),
    "not about images": (("pictures", "--set", "dm.weight=1"), "says nothing about the images"),
    "misspelt": (("pictures", "--set", "data.siez=8"), "did you mean data.size?"),
    "no recipe's name": (("pictures", "--out", "x.txt"), "does not end in .yaml"),
    "one class": (("lonely",), "one class"),
    "empty": (("empty",), "DataError"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    case: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "lonely", {"only": 3})
    arguments, expected = BAD[case]
    assert expected in fails("init", *arguments)
    assert not list(tmp_path.glob("*.yaml"))
    assert not list(tmp_path.glob("x.txt"))


def test_a_place_that_takes_no_file_is_told_before_anything_is_read(pictures: Path, tmp_path: Path) -> None:
    assert "cannot be written" in fails("init", pictures, "--out", pictures / "cat" / "0.png" / "x.yaml")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("source", "out", "name"),
    [
        ("a/My Pictures", None, "my-pictures"),
        ("x.zip", None, "x"),
        ("猫", None, "images"),
        ("café", None, "cafe"),
        ("packaged:digits", None, "my-digits"),
        ("x", Path("runs/first try.yaml"), "first-try"),
        ("..hidden", None, "hidden"),
    ],
)
def test_a_run_is_called_by_plain_letters(source: str, out: Path | None, name: str) -> None:
    assert run_name(source, out) == name


def test_a_source_beside_the_recipe_is_named_from_it(tmp_path: Path) -> None:
    def path(source: Path, out: Path) -> str:
        return located(DataSection(source=str(source)), out)

    assert path(tmp_path / "pictures", tmp_path / "mine.yaml") == "pictures"
    assert path(tmp_path / "pictures", tmp_path / "recipes" / "mine.yaml") == os.path.join("..", "pictures")
    assert path(Path("/data/pictures"), tmp_path / "mine.yaml") == "/data/pictures"
    assert path(Path("/pictures"), tmp_path / "mine.yaml") == "/pictures"


def test_real_networks_are_timed() -> None:
    """Every number is positive, full updates cost more than those by regression, and the network is the one it says."""
    network = {
        "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention": False, "fold": 2,
        "dropout": 0.0,
    }  # fmt: skip
    with probing(2) as prober:
        answer = prober.ask(Question(network, 1, 16, 3, 8, 8))
        assert prober.start > 0
        process = prober._process
    assert process.poll() is not None
    unet = build_unet(unet_config((4, 8, 8), 3, network))
    assert answer["num_parameters"] == sum(parameter.numel() for parameter in unet.parameters())
    assert min(answer.values()) > 0
    assert answer["full_update"] > answer["regression_update"]
