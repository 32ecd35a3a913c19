"""The named baselines: asked for in any of the forms, with the papers' numbers, on the recipe's own scale."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builders import teacher_facts
from msd.diffusion.noise import karras_sigmas
from msd.errors import RecipeError
from msd.fleet.inputs import Inputs
from msd.fleet.jobs import START, TrainTask
from msd.fleet.plan import Plan, plan
from msd.recipe import BASELINES, DMSection, Recipe, load_recipe, validate

NAMES = list(BASELINES)
SMALL: dict[str, Any] = {
    "name": "test",
    "stages": ["tsm", "dm", "adm"],
    "student": {"reduce": 0.42, "start": "random", "critic": "student", "sigma_init": 2.5},
    "pairs": {"num_pairs": 400},
    "tsm": {"num_updates": 30, "batch_size": 8},
    "dm": {
        "num_updates": 100,
        "batch_size": 16,
        "learning_rate": 3e-4,
        "regression": {"weight": 4, "batch_size": 16, "head_start": 0.5, "own_share": 0.9},
    },
    "adm": {"num_updates": 20, "batch_size": 16, "learning_rate": 1e-4, "regression": {"batch_size": 16}},
}


def recipe(rows: Any, **sections: Any) -> Recipe:
    return validate({**SMALL, "rows": rows, **sections})


def row(name: str, **sections: Any) -> Recipe:
    """The recipe of one baseline, beside all that it may need."""
    whole = recipe(["full-single", *{name} - {"full-single"}], **sections)
    return whole.variant(whole.row(name).overrides)


def planned(rows: Any, **sections: Any) -> Plan:
    return plan(recipe(rows, **sections), Inputs(teacher_facts(), images="a" * 64))


def tasks(found: Plan, name: str) -> list[TrainTask]:
    keys = next(one for one in found.rows if one.name == name).jobs
    return [task for key in keys if isinstance(task := found.by_key[key].task, TrainTask)]


def refused(rows: Any, **sections: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe(rows, **sections)
    return str(caught.value)


def is_copy_of_the_teacher(found: Recipe) -> bool:
    student = found.student
    return (student.start, student.reduce, student.critic, found.pairs.source) == ("teacher", None, "teacher", "teacher")


def levels_are_dmds(section: Any) -> bool:
    """Of 1000 levels of the Karras grid, from the lowest, those from 2% to 98%."""
    grid = karras_sigmas(1000, 0.002, 80.0)[:-1].flip(0)
    return (section.sigma_low, section.sigma_high) == pytest.approx((grid[20].item(), grid[980].item()))


def test_dmd_is_dmd_on_the_recipes_scale() -> None:
    found = row("dmd")
    dm, regression = found.dm, found.dm.regression
    assert is_copy_of_the_teacher(found)
    assert (found.partition.num_parts, found.stages) == (1, ("dm",))
    assert (dm.weight, regression.weight, regression.own_share, regression.head_start) == (1, 0.25, 0, 0)
    assert (dm.critic_turns, dm.adam_beta1, dm.clip_norm) == (1, 0.9, 10)
    assert dm.critic_learning_rate == dm.learning_rate == 3e-4
    assert levels_are_dmds(dm)
    assert (dm.sigma_low, dm.sigma_high) == pytest.approx((0.00323, 72.05), rel=1e-3)
    assert (dm.num_updates, dm.batch_size, regression.batch_size, found.student.sigma_init) == (100, 16, 16, 2.5)


def test_dmd2_is_two_time_scales_then_a_gan() -> None:
    found = row("dmd2")
    assert is_copy_of_the_teacher(found)
    assert (found.partition.num_parts, found.stages) == (1, ("dm", "adm"))
    for section in (found.dm, found.adm):
        assert (section.weight, section.regression.weight, section.needs_pairs) == (1, 0, False)
        assert (section.critic_turns, section.adam_beta1, section.ema_decay, section.clip_norm) == (5, 0.9, None, 10)
        assert section.critic_learning_rate == section.learning_rate
        assert levels_are_dmds(section)
    adm = found.adm
    assert found.dm.num_head_start == 0
    assert (found.dm.learning_rate, adm.learning_rate, adm.discriminator_learning_rate) == (3e-4, 1e-4, 1e-4)
    assert (adm.adversarial_weight, adm.discriminator_weight, adm.r1_weight) == (3e-3, 1e-2, 0)
    assert (adm.head, adm.tap, adm.features, adm.trains_critic) == ("strided", "bottleneck", "critic", True)
    assert (adm.discriminator_sigma_low, adm.discriminator_sigma_high, adm.discriminator_warmup) == (0.002, 80, 0)
    assert (adm.critic_weighting, adm.trained_layers) == ("edm", "all")
    assert (found.dm.num_updates, adm.num_updates) == (100, 20)


def test_the_papers_cohort_has_their_settings_on_the_recipes_partition() -> None:
    dm, adm = row("paper-dm"), row("paper-adm")
    assert (dm.stages, adm.stages) == (("dm",), ("dm", "adm"))
    assert dm.partition == adm.partition == recipe([]).partition
    assert dm.dm == adm.dm == row("dmd").dm
    assert adm.adm == row("dmd2").adm
    assert is_copy_of_the_teacher(dm)
    assert is_copy_of_the_teacher(adm)


def test_the_best_single_student_is_as_large_as_the_teacher_and_has_the_cohorts_updates() -> None:
    assert is_copy_of_the_teacher(row("full-single"))
    found = planned(["full-single"])
    (task,) = tasks(found, "full-single")
    assert [(stage.name, stage.settings["num_updates"]) for stage in task.stages] == [("dm", 400), ("adm", 80)]
    given = DMSection.model_validate(task.stages[0].settings)
    assert given.model_copy(update={"num_updates": 100}) == recipe([]).dm  # all else is the recipe's
    same = planned(["full-single", "single-equal-total"], stages=["dm"], student={})
    assert tasks(same, "full-single") == tasks(same, "single-equal-total")


def test_post_distilled_students_regress_on_its_samples_and_on_nothing_else() -> None:
    found = planned(["full-single", "post-distilled"])
    students = tasks(found, "post-distilled")
    assert len(students) == 4
    for task in students:
        (stage,) = task.stages
        dm = DMSection.model_validate(stage.settings)
        assert (task.reduce, task.weights, task.pairs) == (0.42, "random", students[0].pairs)
        assert (dm.weight, dm.regression.weight, dm.num_updates) == (0, 1, 30 + 100 + 20)
        assert dm.num_head_start == dm.num_updates  # so neither a critic nor the teacher has anything to do
    (pairs,) = [job for job in found.jobs if job.name == "pairs-of-full-single"]
    assert pairs.task.hash == students[0].pairs
    assert list(pairs.needs.values()) == list(next(one for one in found.rows if one.name == "full-single").jobs)
    large = row("post-distilled", student={"start": "teacher"})
    assert (large.student.reduce, large.dm.weight) == (None, 0)  # students of any size


def test_the_pruned_student_is_one_that_goes_on_from_slices_of_the_best() -> None:
    found = planned(["pruned", "full-single"])
    (task,) = tasks(found, "pruned")
    (start,) = tasks(found, "full-single")
    assert (task.start, task.reduce, task.weights, task.critic) == (start.hash, 0.42, "start", "teacher")
    assert [(stage.name, stage.settings["num_updates"]) for stage in task.stages] == [("dm", 100), ("adm", 20)]
    (job,) = [job for job in found.jobs if job.name == "pruned"]
    assert found.by_key[job.needs[START]].name == "full-single"


def test_small_random_students_differ_from_the_cohorts_in_their_start_alone() -> None:
    found = planned(["small-random"], student={"reduce": 0.42})
    for task, main in zip(tasks(found, "small-random"), tasks(found, "cohort"), strict=True):
        assert (task.weights, task.critic) == ("random", "teacher")
        assert task.reduce == main.reduce
        assert task.stages == main.stages[1:]


@pytest.mark.parametrize("name", ["pruned", "small-random"])
@pytest.mark.parametrize("student", [{}, {"reduce": 0.0}])
def test_a_small_student_as_large_as_its_teacher_is_refused(name: str, student: dict[str, Any]) -> None:
    """The row would be what its name denies; for itself alone it may say how small."""
    assert "student.reduce leaves nothing out; set e.g. student.reduce=0.42" in refused(
        ["full-single", name], student=student
    )
    own = recipe({"full-single": {}, name: {"baseline": name, "student.reduce": 0.3}}, student=student)
    assert own.variant(own.row(name).overrides).student.reduce == 0.3


@pytest.mark.parametrize(
    ("name", "stages", "missing"),
    [("dmd", "adm", "dm"), ("paper-dm", "adm", "dm"), ("post-distilled", "adm", "dm"), ("dmd2", "dm", "adm"),
     ("paper-adm", "dm", "adm"), ("paper-adm", "adm", "dm")],
)  # fmt: skip
def test_a_stage_whose_scale_the_recipe_does_not_say_is_asked_for(name: str, stages: str, missing: str) -> None:
    message = refused(["full-single", name], stages=[stages], student={})
    assert f"rows.{name}: its baseline goes through" in message
    assert f"stages [{stages}] has no {missing}; add {missing} to the recipe's stages, or to this row's." in message


def test_a_row_may_add_the_stage_for_itself_alone() -> None:
    rows = {"dmd2": {"baseline": "dmd2", "stages": ["dm", "adm"], "adm.learning_rate": 1e-5}}
    found = recipe(rows, stages=["dm"], student={})
    adm = found.variant(found.row("dmd2").overrides).adm
    assert adm.learning_rate == adm.critic_learning_rate == adm.discriminator_learning_rate == 1e-5


def test_every_way_to_ask_is_the_same() -> None:
    """A list, a name without keys, a row of another name; and what is kept is one form, which reads as itself."""
    stored = recipe(["single", "dmd"]).rows
    assert stored == {"single": {"baseline": "single"}, "dmd": {"baseline": "dmd"}}
    for rows in ({"single": {}, "dmd": None}, {"single": {"baseline": "single"}, "dmd": {"dm": {}}}, stored, tuple(stored)):
        assert recipe(rows).rows == stored
    other = recipe({"mine": {"baseline": "dmd"}})
    assert other.row("mine").overrides == recipe(["dmd"]).row("dmd").overrides
    assert other.variant(other.rows["mine"]) == other.variant(other.row("mine").overrides)
    for name in NAMES:
        whole = recipe(["full-single", *{name} - {"full-single"}])
        again = validate(whole.model_dump(mode="json"))
        assert (again, again.row(name)) == (whole, whole.row(name))


def test_a_rows_own_keys_go_on_its_baseline() -> None:
    """And what the baseline makes of a key follows them."""
    rows = {
        "a": {
            "baseline": "dmd",
            "dm": {"learning_rate": 2e-6, "regression": {"weight": 1}},
            "note": "mine",
            "equal": "total-updates",
        }
    }
    found = recipe(rows)
    variant, read = found.variant(found.row("a").overrides), found.row("a")
    assert (variant.dm.learning_rate, variant.dm.critic_learning_rate, variant.dm.regression.weight) == (2e-6, 2e-6, 1)
    assert (read.note, read.equal) == ("mine", "total-updates")
    assert recipe(["dmd"]).row("dmd").equal == "updates-per-student"


def test_without_the_key_a_row_is_what_its_own_keys_say() -> None:
    assert recipe({"pruned": {"dm.weight": 2}}).row("pruned").overrides == {"dm.weight": 2}


def test_set_asks_for_baselines() -> None:
    """Alone or beside what is there, changed in the same command or not; a list in the file is no obstacle."""
    assert list(load_recipe("digits", ["rows=[single,dmd]"]).rows) == ["single", "dmd"]
    for form in ("rows.dmd={}", "rows.dmd=", "rows.dmd.baseline=dmd"):
        assert list(load_recipe("digits", [form]).rows) == ["single", "single-equal-total", "dmd"]
    for first in ([], ["rows=[dmd]"], ["rows.dmd={}"]):
        changed = load_recipe("digits", [*first, "rows.dmd.dm.num_updates=7"])
        assert changed.rows["dmd"] == {"baseline": "dmd", "dm.num_updates": 7}
        assert changed.variant(changed.rows["dmd"]).dm.critic_turns == 1
    assert load_recipe("digits", ["rows=[]"]).rows == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["single", "dmdd"], "rows.dmdd: a row without keys is the baseline of its own name, and there is none; did"),
        ({"x": None}, "and there is none (known: single, single-equal-total, full-single, dmd, dmd2,"),
        ({"x": {"baseline": "dmd3"}}, "rows.x: there is no baseline 'dmd3'; did you mean dmd?"),
        ({"x": {"baseline": None}}, "rows.x: there is no baseline None (known: single"),
        ({"x": {"baseline": ["dmd"]}}, "rows.x: there is no baseline ['dmd']"),
        ({"x": {"baseline": {"of": "dmd"}}}, "rows.x: baseline.of is not a row's key; did you mean baseline?"),
        (["single", "single"], "rows: single is there twice"),
        (["single", 3], "rows: 3 is no baseline's name, which is all that a list of rows holds; write a mapping"),
        ([{"dmd": {}}], "rows: {'dmd': {}} is no baseline's name"),
        ("dmd", "rows: 'dmd' is neither a list of baselines, as [single, dmd], nor a mapping"),
        (None, "rows: None is neither a list of baselines"),
        (["cohort"], "rows.cohort: cohort is kept for the recipe's own row"),
        (["post-distilled"], "rows.post-distilled: pairs.source: there is no row 'full-single', which is a baseline; add"),
        (["pruned"], "rows.pruned: student.start: there is no row 'full-single', which is a baseline; add it with"),
        ({"x": {"baseline": "full-single", "dm.num_updates": 3}}, "remove it, or set equal: updates-per-student."),
        ({"x": {"baseline": "dmd", "dm.learning_rat": 3}}, "rows.x: dm.learning_rat is not a recipe key; did you"),
        ({"x": {"baseline": "dmd", "dm": 3}}, "rows.x: dm: input should be a valid dictionary"),
        ({"x": {"baseline": "dmd", "evaluation.seed": 3}}, "rows.x: evaluation.seed may not differ"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_in_one_sentence(rows: Any, message: str) -> None:
    found = refused(rows)
    assert message in found
    assert "\n" not in found


def test_the_row_that_is_missing_comes_by_the_command_that_the_sentence_gives() -> None:
    student = ["student.reduce=0.42"]
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [*student, "rows=[pruned]"])
    (command,) = re.findall(r"--set '(.*)'", str(caught.value))
    assert list(load_recipe("digits", [*student, "rows=[pruned]", command]).rows) == ["pruned", "full-single"]


def test_a_cohort_may_need_a_baseline_unless_that_needs_the_cohort() -> None:
    """What is the teacher's stays the teacher's, wherever the cohort begins and its pairs come from."""
    found = recipe(["full-single", "dmd"], pairs={"source": "full-single", "num_pairs": 400})
    for name in found.rows:
        assert found.variant(found.row(name).overrides).pairs.source == "teacher"
    message = refused(["full-single", "post-distilled"], student={"start": "row:post-distilled"})
    assert "post-distilled -> post-distilled waits for itself" in message


def test_the_page_about_baselines_tells_of_each() -> None:
    """Its first table has a line for each, in the table's order, that says where the settings come from."""
    text = (Path(__file__).parents[1] / "docs" / "baselines.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `([a-z0-9-]+)` \|", text, flags=re.MULTILINE)
    assert lines == NAMES
