"""`--set`: keys that are none, values of the wrong type, numbers out of range, and what a verb may not change."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.abuse.arguments import untouched
from benchmarks.abuse.case import Case
from benchmarks.abuse.judge import EITHER, ERROR, Expect
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import World

INTEGERS = (
    "seed",
    "dm.num_updates",
    "dm.batch_size",
    "pairs.num_pairs",
    "pairs.shard_size",
    "pairs.solver.num_steps",
    "partition.num_parts",
    "evaluation.num_samples",
    "evaluation.batch_size",
    "evaluation.latency_repeats",
    "fleet.checkpoint_every",
    "fleet.max_parallel",
    "fleet.num_micro_batches",
    "fleet.threads",
    "network.layers_per_block",
    "tsm.num_updates",
    "tsm.look_every",
    "adm.batch_size",
    "adm.discriminator_warmup",
    "adm.critic_turns",
)
FLOATS = (
    "dm.learning_rate",
    "dm.sigma_low",
    "dm.ema_decay",
    "dm.weight",
    "student.sigma_init",
    "pretrain.sigma_max",
    "student.reduce",
    "tsm.held_out",
    "tsm.improvement",
    "adm.adversarial_weight",
    "adm.r1_weight",
    "adm.discriminator_sigma_high",
    "adm.discriminator_learning_rate",
)
BAD_INTEGERS = ("x", "1.5", "nan", "-1", "null", "[1]", "{a: 1}", "'7'", "true", "1e400", f"{10**30}", "")
BAD_FLOATS = ("x", "nan", ".nan", "-1", ".inf", "1e999", "[0.1]", "{a: 1}", "true")
UNREADABLE = (
    "[",
    "{a",
    "'",
    "&a *a",
    "!!python/object/apply:os.system ['true']",
    "a: b: c",
    "\t",
    "*nothing",
    "!x 1",
    "2001-99-99",
    "%",
    "@",
    "`",
)
KEYS = (
    ".",
    "..",
    "dm.",
    ".dm",
    "dm..weight",
    "nothing",
    "dm.nothing",
    "dm.weight.deeper",
    "seed.deeper",
    "DM.weight",
    "dm weight",
    "[bold]",
    "\u6a21",
    "__class__",
    "rows.",
    "rows.x.y.z",
    "x" * 3000,
    "dm.\x1b[31m",
    "0",
    "model_config",
)
WHOLE = (
    "fleet.num_micro_batches=7",
    "dm=3",
    "dm=[]",
    "dm=null",
    "dm=word",
    "rows=3",
    "rows=[1]",
    "rows={a: 3}",
    "rows={'a/b': {}}",
    "rows={'../x': {}}",
    "rows={cohort: {}}",
    "rows={'': {}}",
    "rows={a: {equal: nothing}}",
    "rows={a: {surprise: 1}}",
    "rows={a: {pairs.source: a}}",
    "rows={a: {pairs.source: b}, b: {pairs.source: a}}",
    "stages=[]",
    "stages=[dm, dm]",
    "stages=dm",
    "stages=[nothing]",
    "stages=[3]",
    "name=../x",
    "name=''",
    "name=[b]",
    "name=a/b",
    "name=.",
    "name=" + "x" * 300,
    "device=tpu",
    "precision=float16",
    "precision=16",
    "precision=[bfloat16]",
    "rows={a: {precision: half}}",
    "teacher.source=''",
    "teacher.source=packaged:nothing",
    "teacher.source=packaged:../x",
    "teacher.source=/dev/zero",
    "teacher.source=/",
    "partition.method=file",
    "partition.file=nowhere",
    "partition.file=/dev/zero",
    "partition.method=nothing",
    "partition.num_parts=11",
    "student.start=nowhere",
    "student.start=/dev/null",
    "pairs.source=nothing",
    "pairs.solver.method=rk4",
    "pairs.solver.method=heun-sde",
    "pairs.solver.sigma_min=90",
    "data.name=cats",
    "network.block_out_channels=[]",
    "network.block_out_channels=[7]",
    "network.block_out_channels=[8, -8]",
    "evaluation.teacher=[]",
    "evaluation.teacher=[heun]",
    "evaluation.teacher=[rk4]",
    "evaluation.teacher=[heun18, heun18]",
    "evaluation.latency_batches=[0]",
    "evaluation.latency_batches=[x]",
    "dm.sigma_low=30",
    "dm.weight=0",
    "dm.regression.batch_size=1000",
    "stages=[tsm]",
    "stages=[dm, tsm]",
    "stages=[[dm]]",
    "stages={dm: 1}",
    "stages=null",
    "tsm=3",
    "tsm.samples=noise",
    "tsm.scope=both",
    "tsm.surprise=1",
    "adm=null",
    "adm.features=student",
    "adm.features=teacher",
    "adm.head=huge",
    "adm.tap=[]",
    "adm.trained_layers=none",
    "adm.discriminator_sigma_low=30",
    "adm.regression.head_start=0.5",
    "adm.surprise=1",
    "student.reduce=0.1",
    "student.reduce=1",
    "student.start=",
    "student.start='row:'",
    "student.start=row:nothing",
    "student.start=[random]",
    "student.critic=nobody",
    "student.surprise=1",
    "rows={a: {student.start: 'row:a'}}",
    "rows={a: {student.start: 'row:b'}, b: {student.start: 'row:a'}}",
    "rows={a: {student.start: 'row:b', student.sigma_init: 5}, b: {partition.num_parts: 1}}",
    "rows={a: {student.reduce: 0.1}}",
    "rows={a: {stages: [dm, adm], adm.tap: middle}}",
    "rows={a: {stages: [dm, adm], adm.regression.batch_size: 1000}}",
    "rows={a: {stages: [tsm]}}",
    "rows={a: {stages: 3}}",
    "rows={a: {adm.nothing: 1}}",
    "rows={a: {student.start: random, student.critic: student}}",
)
POSSIBLE = ("rows={'': {}}", "stages=[dm, dm]", "name=[b]", "dm.weight=0", "device=tpu", "network.block_out_channels=[]")
"""Some of which a recipe may come to allow; a plan of them is right if it is made."""
ROWS = (
    "rows=word",
    "rows=null",
    "rows=[dmdd]",
    "rows=[single, single]",
    "rows=[[single]]",
    "rows=[{dmd: {}}]",
    "rows=[null]",
    "rows=[true]",
    "rows=[cohort]",
    "rows=['../x']",
    "rows=[dmd, [bold]]",
    "rows={a: null}",
    "rows={a: {partition: {}}}",
    "rows={a: {baseline: nothing}}",
    "rows={a: {baseline: null}}",
    "rows={a: {baseline: [dmd]}}",
    "rows={a: {baseline: {of: dmd}}}",
    "rows={a: {baseline: dmd, surprise: 1}}",
    "rows={a: {baseline: dmd, dm: 3}}",
    "rows={a: {baseline: dmd, dm.learning_rate: nan}}",
    "rows={a: {baseline: dmd, dm.weight: 0, dm.regression.weight: 0}}",
    "rows={a: {baseline: dmd, stages: [tsm]}}",
    "rows={a: {baseline: full-single, dm.num_updates: 3}}",
    "rows={a: {baseline: post-distilled, dm.num_updates: many}}",
    "rows={full-single: {student.start: 'row:pruned'}, pruned: {baseline: pruned, student.reduce: 0.4}}",
    "rows=[dmd2]",
    "rows=[post-distilled]",
    "rows=[pruned]",
    "rows=[full-single, pruned]",
    "rows=[small-random]",
    "rows.dmd=3",
    "rows.dmd.dm.nothing=1",
    "rows.cohort.baseline=dmd",
    "rows.x.baseline=",
)
"""Rows and baselines that no recipe of the DM stage and students of the teacher's size can have."""
PROTECTED = (
    "seed=3",
    "partition.num_parts=3",
    "dm.weight=2",
    "teacher.source=packaged:digits",
    "device=cpu",
    "fleet.threads=2",
    "name=x",
    "rows={}",
    "evaluation.nothing=1",
    "evaluation=3",
    "evaluation.num_samples=0",
    "evaluation.num_samples=nan",
    "evaluation.seed=-1",
    "evaluation.nearest_neighbours=1000",
)


def cases(world: World) -> Iterator[Case]:
    for index, key in enumerate(INTEGERS):
        for value in BAD_INTEGERS[index % 2 :: 2]:
            yield _case("plan", f"{key}={value}", _integer(key, value))
    for index, key in enumerate(FLOATS):
        for value in BAD_FLOATS[index % 2 :: 2]:
            yield _case("partition", f"{key}={value}")
    for value in UNREADABLE:
        yield _case("plan", f"dm.weight={value}")
    for key in KEYS:
        yield _case("plan", f"{key}=1")
    for setting in WHOLE:
        yield _case("partition", setting, EITHER if setting in POSSIBLE else ERROR)
    for setting in ROWS:
        yield _case("plan", setting)
    for setting in ("", "=", "=1", "dm.weight", "dm.weight=" + "[" * 20_000, "dm.weight=" + "9" * 5000, f"a={laughs()}"):
        yield _case("plan", setting)
    for setting in PROTECTED:
        yield _measured(setting)


def _integer(key: str, value: str) -> Expect:
    """What a field may mean beside a number: no limit, or a number that is written otherwise."""
    lenient = (
        value in ("'7'",)
        or (value in ("null", "") and key == "fleet.max_parallel")
        or (key == "fleet.threads" and value == "0")
    )
    return EITHER if lenient else ERROR


def laughs() -> str:
    """Aliases of aliases: a few hundred characters that mean billions."""
    levels = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return f"[{', '.join(levels)}]"


def _case(verb: str, setting: str, expect: Expect = ERROR) -> Case:
    name = setting if len(setting) <= 60 else f"{setting[:40]}...{len(setting)}"

    def words(scene: Scene) -> list[object]:
        return [
            verb,
            *scene.world.recipe,
            "--set",
            setting,
            *(["--out", scene.work / "run"] if verb != "plan" else ["--json"]),
        ]

    return _regrouped(untouched(f"{verb} {name!r}", words, expect))


def _measured(setting: str) -> Case:
    """`eval` changes nothing but how it measures."""
    return _regrouped(untouched(f"eval {setting!r}", lambda scene: ["eval", scene.finished() / "cohort", "--set", setting]))


def _regrouped(case: Case) -> Case:
    return Case("set", case.name, case.play)
