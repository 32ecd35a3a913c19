"""Blueprints stand for a file that is not there; a file that is there has to agree with the one that its recipe names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import save_teacher
from msd.errors import WeightsError
from msd.fleet.foresight import look_ahead
from msd.fleet.inputs import read_inputs
from msd.fleet.possible import student_network
from msd.networks.anatomy import read_anatomy
from msd.networks.cost import weightless
from msd.networks.facts import read_config, read_facts
from msd.recipe import load_recipe
from msd.teachers import blueprints

SIZES = {"imagenet64": 295_899_267, "imagenet64-small-42": 172_813_603, "imagenet64-small-71": 85_943_555}
"""The paper's: 295.9M, 172.8M and 85.9M."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher's folder, and a blueprint `own` of it, in the place of the packaged ones."""
    folder = tmp_path / "teacher"
    save_teacher(folder)
    facts = read_facts(folder)
    content = {"about": "a test's", "network": facts["network"], "config": read_config(folder), "spec": facts["spec"]}
    (tmp_path / "own.json").write_text(json.dumps(content))
    monkeypatch.setattr(blueprints, "PACKAGED", tmp_path)
    return folder


def _recipe(folder: Path, *more: str):
    return load_recipe("smoke", [f"teacher.source={folder}", "teacher.blueprint=own", *more])


def test_a_plan_is_made_from_a_blueprint_as_from_the_file(own: Path) -> None:
    """The same jobs and the same networks; only hashes are not known, and it says why."""
    there, missing = look_ahead(_recipe(own)), look_ahead(_recipe(own.with_name("missing")))
    assert [job.name for job in there.plan.jobs] == [job.name for job in missing.plan.jobs]
    assert (there.inputs.teacher.kind, there.spec) == (missing.inputs.teacher.kind, missing.spec)
    assert there.is_certain
    assert not missing.is_certain
    assert any("missing is not there" in note and "blueprint own" in note for note in missing.notes)


def test_images_that_are_missing_are_noted_also_where_the_teacher_is_there(own: Path, tmp_path: Path) -> None:
    adm = ("stages=[dm, adm]", f"data.source={tmp_path / 'images.zip'}")
    there, missing = (look_ahead(_recipe(folder, *adm)) for folder in (own, own.with_name("missing")))
    for outlook, num_notes in ((there, 1), (missing, 2)):
        assert not outlook.is_certain
        assert len(outlook.notes) == num_notes
        assert "the real images images.zip are not there" in outlook.notes[-1]


def test_a_file_that_is_something_else_is_refused_naming_both(own: Path) -> None:
    path = own.with_name("own.json")
    content = json.loads(path.read_text())
    content["config"]["layers_per_block"] = 2
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=rf"{own} is not what blueprint own says: its layers_per_block is 1, not 2"):
        read_inputs(_recipe(own))
    assert read_inputs(load_recipe("smoke", [f"teacher.source={own}"])).teacher.num_conditions == 10


def test_an_unknown_blueprint_is_refused_naming_those_that_there_are(own: Path) -> None:
    with pytest.raises(WeightsError, match="no blueprint 'other'; known: own"):
        look_ahead(_recipe(own.with_name("missing"), "teacher.blueprint=other"))


def test_a_blueprint_is_no_part_of_a_run(own: Path) -> None:
    assert _recipe(own).fingerprint() == load_recipe("smoke", [f"teacher.source={own}"]).fingerprint()


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_the_papers_recipes_plan_without_any_file(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four students of 250 consecutive classes each, of the size that the paper's percentages fit."""
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(name)
    assert recipe.teacher.source == str(tmp_path / "edm-imagenet-64x64-cond-adm.pkl")  # beside its user, not in the package
    outlook = look_ahead(recipe)
    assert [len(part) for part in outlook.plan.main.partition.parts] == [250] * 4
    student = student_network(recipe, outlook.inputs, lambda row: recipe)
    assert student is not None
    assert read_anatomy(student.config).num_parameters() == size
    assert len(outlook.notes) == 2  # neither the teacher nor the images
    assert not any(tmp_path.iterdir())


def test_the_transformers_recipe_plans_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DiT-XL/2 as diffusers has it: 675M parameters, and 27 more copies of what embeds time and class, one a block."""
    monkeypatch.chdir(tmp_path)
    outlook = look_ahead(load_recipe("dit256"))
    teacher = outlook.inputs.teacher
    assert (teacher.guidance, teacher.null_label, outlook.spec.pixel_shape) == (1.5, 1000, (3, 256, 256))
    denoiser = weightless(teacher.kind, teacher.config or {}, outlook.spec)
    blocks = denoiser.network.get_submodule("model.transformer_blocks")
    copy = sum(one.numel() for one in blocks.get_submodule("0.norm1.emb").parameters())
    assert denoiser.num_parameters() == 749_826_464
    assert denoiser.num_parameters() - 27 * copy == pytest.approx(675e6, rel=0.005)
