"""Environments: no HOME, narrow and plain terminals, other locales and folders, libraries and variables that disturb."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import FINE, Expect, judge
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import World

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "no-home": {"environment": {"HOME": None}},
    "home-nowhere": {"environment": {"HOME": "/nowhere"}},
    "home-is-a-file": {"environment": {"HOME": "/dev/null"}},
    "no-variables": {"environment": {"HOME": None, "PATH": None, "LANG": None, "USER": None, "TERM": None}},
    "40-columns": {"environment": {"COLUMNS": "40"}},
    "1-column": {"environment": {"COLUMNS": "1"}},
    "columns-word": {"environment": {"COLUMNS": "wide"}},
    "ascii": {"encoding": "ascii", "environment": {"PYTHONIOENCODING": "ascii"}},
    "latin-1": {"encoding": "latin-1", "environment": {"PYTHONIOENCODING": "latin-1"}},
    "c-locale": {"environment": {"LC_ALL": "C", "LANG": "C"}},
    "dumb-terminal": {"environment": {"TERM": "dumb"}},
    "colour-forced": {"environment": {"FORCE_COLOR": "1"}},
    "tmp-nowhere": {"environment": {"TMPDIR": "/nowhere"}},
    "threads-word": {"environment": {"OMP_NUM_THREADS": "many"}},
    "offline": {"environment": {"HF_HUB_OFFLINE": "1", "http_proxy": "http://127.0.0.1:9"}},
    "rank-of-none": {"environment": {"RANK": "0", "WORLD_SIZE": "1"}},
    "rank-word": {"environment": {"RANK": "x", "WORLD_SIZE": "y", "LOCAL_RANK": "z"}},
}
VERBS = ("recipes", "plan", "status", "sample", "report", "partition")


def cases(world: World) -> Iterator[Case]:
    for index, (name, options) in enumerate(ENVIRONMENTS.items()):
        for verb in VERBS[index % 2 :: 2] if name not in ("ascii", "40-columns") else VERBS:
            yield _case(f"{name}/{verb}", verb, options)
    for name in ("no-home", "ascii", "threads-word", "rank-word"):
        yield _case(f"{name}/pairs", "pairs", ENVIRONMENTS[name])
    for name in ("ascii", "40-columns", "colour-forced"):
        for verb in ("recipes", "status", "plan"):
            yield _case(f"{name}/{verb}-json", verb, ENVIRONMENTS[name], "--json")
    yield from _folders()


def _words(scene: Scene, verb: str) -> list[object]:
    if verb in ("plan", "partition", "pairs"):
        out = [] if verb == "plan" else ["--out", scene.folder / "run"]
        return [verb, *scene.world.recipe, *out]
    if verb == "recipes":
        return ["recipes"]
    run = scene.finished()
    return {"status": ["status", run], "report": ["report", run], "sample": ["sample", run / "cohort", "--num", "1"]}[verb]


def _case(name: str, verb: str, options: dict[str, Any], *more: str) -> Case:
    def play(scene: Scene) -> list[Fault]:
        done = scene.run(*_words(scene, verb), *more, seconds=30, **options)
        faults = judge(done, Expect((0, 1, 2), names=("RANK", "WORLD_SIZE")) if name.startswith("rank-word") else FINE)
        if done.code == 0 and verb != "pairs" and not done.stdout.strip():
            faults.append(Fault("wrong", "it printed no result"))
        return faults

    return Case("surroundings", name, play)


def _folders() -> Iterator[Case]:
    def gone(scene: Scene) -> list[Fault]:
        place = scene.folder / "gone"
        place.mkdir()
        scene.transcript.append("(in a folder that was removed)")

        def action() -> None:
            place.rmdir()
            from msd.cli import main

            main()

        done = scene.finish(scene.start("plan", *scene.world.recipe, folder=place, action=action))
        return judge(done, Expect((0, 2)))

    yield Case("surroundings", "removed-folder/plan", gone)

    def odd(scene: Scene) -> list[Fault]:
        place = scene.folder / "[bold] \u6a21\n 'x' $HOME"
        place.mkdir()
        done = scene.run("partition", *scene.world.recipe, "--out", place / "[/red] run", "--json", folder=place)
        return judge(done, FINE)

    yield Case("surroundings", "odd-folder/partition", odd)

    def linked(scene: Scene) -> list[Fault]:
        """A run whose cohort and report are links to folders elsewhere: they stay links."""
        run = scene.finished()
        for name in ("cohort", "report"):
            (run / name).rename(scene.folder / f"my-{name}")
            (run / name).symlink_to(scene.folder / f"my-{name}")
            scene.guard(run / name)
        (scene.folder / "my-cohort" / "cohort.json").write_text("{}")
        done = scene.run("distill", *scene.world.recipe, "--out", run, seconds=30)
        return judge(done, FINE) + judge(scene.run("report", run, seconds=30), FINE)

    yield Case("surroundings", "linked-folders/distill", linked)

    def copied(scene: Scene) -> list[Fault]:
        """A finished run under another name answers from what is there."""
        run = scene.copy("run", "[b] moved \u6a21")
        return judge(scene.run("status", run, "--json"), FINE) + judge(scene.run("report", run, seconds=30), FINE)

    yield Case("surroundings", "moved-run/report", copied)
