"""The recipe: packaged ones load, faults fail early with the nearest valid name, and identity is what decides a run."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from msd.errors import RecipeError
from msd.recipe import (
    DMSection,
    PretrainSection,
    Recipe,
    RoleSection,
    explain,
    load_recipe,
    packaged_recipes,
    validate,
)


@pytest.fixture
def bare(tmp_path):
    """A recipe of defaults alone, so that these tests don't move with the tuning of the packaged ones."""
    path = tmp_path / "bare.yaml"
    path.write_text("seed: 0\ndevice: cpu\n")
    return str(path)


@pytest.mark.parametrize("name", sorted(packaged_recipes()))
def test_packaged_recipes_load(name):
    """Every packaged recipe validates, bears its file's name and says what it is, costs and should give."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.cost
    assert recipe.expected


def test_digits_recipe_is_the_demo():
    """Four contiguous parts of the packaged digits teacher, DM with regression, on the CPU."""
    recipe = load_recipe("digits")
    assert recipe.teacher.source == "packaged:digits"
    assert (recipe.partition.method, recipe.partition.num_parts) == ("contiguous", 4)
    assert recipe.dm.weight > 0
    assert recipe.dm.regression.weight > 0
    assert (recipe.seed, recipe.device) == (0, "cpu")


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("dm.learning_rate=3e-4", lambda recipe: recipe.dm.learning_rate, 3e-4),
        ("dm.regression.batch_size=7", lambda recipe: recipe.dm.regression.batch_size, 7),
        ("network.block_out_channels=[16, 32, 64]", lambda recipe: recipe.network.block_out_channels, (16, 32, 64)),
        ("fleet.max_parallel=2", lambda recipe: recipe.fleet.max_parallel, 2),
        ("fleet.max_parallel=null", lambda recipe: recipe.fleet.max_parallel, None),
        ("rows={}", lambda recipe: recipe.rows, {}),
        ("summary=a=b", lambda recipe: recipe.summary, "a=b"),
        ("dm.regression.with_replacement=true", lambda recipe: recipe.dm.regression.with_replacement, True),
    ],
)
def test_overrides_set_one_value(bare, override, read, value):
    """A dotted key takes a YAML value, nested sections and lists included, and nothing else changes."""
    changed = load_recipe(bare, [override])
    assert read(changed) == value
    assert read(load_recipe(bare, [override, override])) == value
    key = override.partition("=")[0].split(".")[0]
    assert changed.model_dump(exclude={key}) == load_recipe(bare).model_dump(exclude={key})


def test_later_overrides_win(bare):
    """Of two values for one key the last stands."""
    assert load_recipe(bare, ["dm.num_updates=10", "dm.num_updates=20"]).dm.num_updates == 20


def test_seed_and_device_replace_the_files(bare):
    """`seed` and `device` come from the command line, also seed 0, unless they are None."""
    recipe = load_recipe(bare, ["seed=5"], seed=None, device="cuda")
    assert (recipe.seed, recipe.device) == (5, "cuda")
    assert load_recipe(bare, ["seed=5"], seed=0).seed == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dm.learning_rat=1", r"^dm\.learning_rat is not a recipe key; did you mean learning_rate\?"),
        ("dm.regression.weigth=1", r"^dm\.regression\.weigth is not a recipe key; did you mean weight\?"),
        ("pairs.solver.num_step=3", r"^pairs\.solver\.num_step is not a recipe key; did you mean num_steps\?"),
        ("sead=1", r"^sead is not a recipe key; did you mean seed\?"),
        ("teacher.zzz=1", r"^teacher\.zzz is not a recipe key \(known: source, guidance, blueprint\)"),
        ("dm.num_updates=many", r"^dm\.num_updates: .*integer.* \(got 'many'\); change it in the recipe or with --set"),
        ("dm.num_updates=2.5", r"^dm\.num_updates: .*integer.*\(got 2\.5\)"),
        ("dm.num_updates=0", r"^dm\.num_updates: .*greater than or equal to 1 \(got 0\)"),
        ("dm.learning_rate=-1", r"^dm\.learning_rate: .*greater than 0 \(got -1\)"),
        ("dm.ema_decay=1", r"^dm\.ema_decay: .*less than 1"),
        ("dm.regression.head_start=1.5", r"^dm\.regression\.head_start: .*less than or equal to 1"),
        ("dm.regression.own_share=1.5", r"^dm\.regression\.own_share: .*less than or equal to 1"),
        ("network.block_out_channels=[24, wide]", r"^network\.block_out_channels\.1: .*integer"),
        ("pairs.solver.method=rk4", r"^pairs\.solver\.method: .*'heun', 'euler' or 'dpmpp2m' \(got 'rk4'\)"),
        (
            "pairs.solver.method=heun-sde",
            r"heun-sde adds noise of its own, .*; use heun, euler or dpmpp2m; change it in the",
        ),
        ("pairs.solver.method=[heun]", r"^pairs\.solver\.method: .*'dpmpp2m'"),
        (
            "evaluation.teacher=[heun]",
            r"^evaluation\.teacher: 'heun' is no solver with its number of steps; write .* heun18",
        ),
        ("evaluation.teacher=[heun0]", r"^evaluation\.teacher: 'heun0' is no solver with its number of steps"),
        ("evaluation.teacher=[18]", r"^evaluation\.teacher\.0: .*string"),
        ("evaluation.teacher=['18']", r"^evaluation\.teacher: '18' is no solver with its number of steps"),
        (
            "evaluation.teacher=[huen18]",
            r"^evaluation\.teacher: there is no solver 'huen' \(of 'huen18'\); did you mean heun\?$",
        ),
        (
            "evaluation.teacher=[rk4]",
            r"^evaluation\.teacher: there is no solver 'rk' .*\(known: heun, euler, dpmpp2m, heun-sde\)",
        ),
        ("evaluation.teacher=[heun100001]", r"^evaluation\.teacher: 'heun100001' takes more than 100000 steps"),
        ("evaluation.teacher=[heun18, heun18]", r"^evaluation\.teacher: heun18 is there twice; leave one of them out"),
        ("evaluation.teacher=[]", r"^evaluation\.teacher: .*at least 1 item"),
        ("evaluation.teacher=heun18", r"^evaluation\.teacher: .*tuple \(got 'heun18'\)"),
        ("partition.method=kmeans", r"^partition\.method: .*'balanced-kmeans'"),
        ("name=a/b", r"^name: .*pattern"),
        ("seed=-1", r"^seed: .*greater than or equal to 0"),
        ("dm=3", r"^dm: .*\(got 3\)"),
        ("dm.sigma_init=3", r"^dm\.sigma_init is not a recipe key; did you mean student\.sigma_init\?"),
        ("stages=[dmm]", r"^stages: there is no stage 'dmm'; did you mean dm\?$"),
        ("stages=[]", r"^stages: a student goes through at least one stage \(known: tsm, dm, adm\)"),
        ("stages=[dm, dm]", r"^stages: dm is there twice, .* raise dm\.num_updates instead"),
        ("stages=dm", r"^stages: .*tuple \(got 'dm'\)"),
        ("baselines=[]", r"^baselines is not a recipe key \(known: .*rows"),
        ("dm.learning_rate.x=3", r"^dm\.learning_rate: .*number"),
    ],
)
def test_wrong_keys_and_values_are_named(bare, override, message):
    """An unknown key gets the nearest valid one, a wrong value its key, the rule and what was given."""
    with pytest.raises(RecipeError, match=message):
        load_recipe(bare, [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dm.learning_rate", r"--set 'dm\.learning_rate' is not KEY=VALUE"),
        ("=3", r"--set '=3' is not KEY=VALUE"),
        ("", r"--set '' is not KEY=VALUE"),
        ("stages=[dm", r"the value is not YAML"),
        ("seed=2024-99-99", r"the value is not YAML"),
        ("dm={weight: 1, weight: 2}", r"the value is not YAML"),
        ("seed.x=1", r"seed is a value, not a section"),
        ("device.index.x=1", r"device is a value, not a section"),
    ],
)
def test_bad_override_syntax(bare, override, message):
    """What is not KEY=VALUE, not YAML, or goes below a plain value is refused."""
    with pytest.raises(RecipeError, match=message):
        load_recipe(bare, [override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pairs.num_pairs=32", "dm.regression.batch_size=33"], r"batch_size 33 is larger than pairs\.num_pairs 32"),
        (["dm.sigma_low=20", "dm.sigma_high=20"], r"dm\.sigma_low 20\.0 must be below dm\.sigma_high 20\.0"),
        (["dm.weight=0", "dm.regression.weight=0"], r"both 0, so nothing would be learned"),
        (["dm.regression.weight=0", "dm.regression.head_start=0.5"], r"head_start needs dm\.regression\.weight above 0"),
        (["network.block_out_channels=[24, 20]"], r"norm_num_groups 8 must divide every width, and 20 it does not"),
        (["partition.method=file"], r"partition: method file needs `file`"),
        (["partition.file=split.yaml"], r"partition: method file needs `file`, and only it does"),
    ],
)
def test_impossible_combinations_are_refused(bare, overrides, message):
    """Values that are each valid but cannot go together fail before anything is loaded."""
    with pytest.raises(RecipeError, match=message):
        load_recipe(bare, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["pairs.num_pairs=32", "dm.regression.batch_size=32"],
        ["pairs.num_pairs=32", "dm.regression.batch_size=33", "dm.regression.with_replacement=true"],
        ["pairs.num_pairs=32", "dm.regression.batch_size=33", "dm.regression.weight=0"],
        ["dm.weight=0"],
        ["dm.regression.head_start=1"],
    ],
)
def test_neighbours_of_the_impossible_are_possible(bare, overrides):
    """The refusals stop exactly at their limit."""
    assert load_recipe(bare, overrides).name == "bare"


def test_recipes_are_frozen(bare):
    """Neither the recipe nor a section can be changed once made."""
    recipe = load_recipe(bare)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        recipe.dm.num_updates = 1
    assert recipe == load_recipe(bare)


@pytest.mark.parametrize(
    "override",
    ["evaluation.num_samples=7", "fleet.threads=3", "device=cuda", "summary=other", "cost=other", "rows={}"],
)
def test_fingerprint_ignores_where_and_how_it_is_measured(bare, override):
    """Evaluation, fleet, device, rows and prose do not make another run."""
    assert load_recipe(bare, [override]).fingerprint() == load_recipe(bare).fingerprint()


@pytest.mark.parametrize(
    "override",
    [
        "dm.num_updates=7",
        "dm.regression.own_share=0.5",
        "pairs.num_pairs=100",
        "partition.num_parts=2",
        "network.dropout=0.1",
        "pretrain.batch_size=3",
        "student.sigma_init=2.5",
        "seed=1",
    ],
)
def test_fingerprint_counts_all_that_decides_the_result(bare, override):
    """Another value in training, pairs, partition, teacher or seed is another run."""
    assert load_recipe(bare, [override]).fingerprint() != load_recipe(bare).fingerprint()


def test_identity_rebuilds_the_same_run(bare):
    """A recipe made from the stored identity has the same fingerprint."""
    recipe = load_recipe(bare, ["dm.num_updates=7"])
    again = validate(recipe.identity())
    assert isinstance(again, Recipe)
    assert again.fingerprint() == recipe.fingerprint()


@pytest.mark.parametrize(
    ("share", "num_updates", "expected"), [(0.0, 10, 0), (0.5, 10, 5), (0.34, 6, 2), (0.39, 10, 4), (1.0, 7, 7)]
)
def test_head_start_is_a_share_of_the_updates(bare, share, num_updates, expected):
    """`num_head_start` is the share in whole student updates."""
    recipe = load_recipe(bare, [f"dm.num_updates={num_updates}", f"dm.regression.head_start={share}"])
    assert recipe.dm.num_head_start == expected


@pytest.mark.parametrize(
    "overrides",
    [
        (["teacher.source=a"], ["teacher.source=b"]),
        (["student.start=a"], ["student.start=b"]),
        (["partition={method: file, file: a}"], ["partition={method: file, file: b}"]),
    ],
)
def test_identity_holds_no_path(bare, overrides):
    """Where content lies is no part of a run's identity; that it comes from a path and not from a word is."""
    first, second = (load_recipe(bare, one) for one in overrides)
    assert first.fingerprint() == second.fingerprint() != load_recipe(bare).fingerprint()


def test_a_stage_says_how_its_networks_learn():
    """Teacher, student and critic are described by one set of fields; the critic has its own rate and no average."""
    recipe = load_recipe("digits")
    assert recipe.stage_settings() == (("dm", recipe.dm),)
    critic = recipe.dm.critic_role
    assert (critic.learning_rate, critic.ema_decay) == (recipe.dm.critic_learning_rate, None)
    for name in RoleSection.model_fields.keys() - {"learning_rate", "ema_decay"}:
        assert getattr(critic, name) == getattr(recipe.dm, name)
    defaults = {name: getattr(DMSection(), name) for name in RoleSection.model_fields}
    assert defaults == {
        "learning_rate": 8e-4,
        "warmup_updates": 25,
        "final_rate": 0.05,
        "adam_beta1": 0.0,
        "clip_norm": 10.0,
        "ema_decay": 0.995,
    }
    assert PretrainSection().ema_decay == 0.998


def test_every_value_is_explained():
    """Each section and each key of a recipe has documentation, and its text says where it came from."""
    recipe = load_recipe("digits")
    sections = {section.name: section for section in explain(recipe)}
    assert sections.keys() >= {"", "dm", "dm.regression", "pairs.solver", "student", "fleet"}
    assert all(section.documentation and section.keys for section in sections.values())
    keys = {key.key: key for section in sections.values() for key in section.keys}
    assert [key.key for key in keys.values() if len(key.documentation) < 15] == []
    assert (keys["dm.num_updates"].value, keys["dm.num_updates"].origin) == (880, "recipe")
    assert (keys["dm.critic_turns"].value, keys["dm.critic_turns"].origin) == (1, "default")
    assert keys["pairs.solver.num_steps"].origin == "recipe"


def test_a_default_section_is_all_default(bare):
    """Also what the section's default sets itself."""
    origins = {key.key: key.origin for section in explain(load_recipe(bare, ["dm.weight=2"])) for key in section.keys}
    assert {key for key, origin in origins.items() if origin == "recipe"} == {"name", "seed", "device", "dm.weight"}


def test_a_solver_keeps_its_steps_when_another_value_is_set(bare):
    """Setting a value of a section does not move its neighbours."""
    assert (
        load_recipe(bare, ["pairs.solver.method=euler"]).pairs.solver.num_steps == load_recipe(bare).pairs.solver.num_steps
    )


def test_the_recipe_needs_no_torch():
    """So that listing, explaining and planning are instant."""
    code = "import sys, msd.recipe; sys.exit(str({'torch', 'numpy', 'diffusers'} & set(sys.modules) or ''))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
