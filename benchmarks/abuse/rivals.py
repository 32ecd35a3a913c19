"""Two commands on one run at once: one works, the other says who does, and the result is the undisturbed one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import FINE, Expect, judge
from benchmarks.abuse.process import Done
from benchmarks.abuse.results import same_tensors
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.signals import WORKS
from benchmarks.abuse.world import World

SECONDS = 90.0
REFUSED = Expect((2,))
PAIRS = (
    ("distill", "distill"),
    ("pretrain", "pretrain"),
    ("pairs", "pairs"),
    ("pairs", "distill"),
    ("distill", "partition"),
    ("report", "report"),
    ("demo", "demo"),
)
DELAYS = (0.0, 0.05, 0.4)


def cases(world: World) -> Iterator[Case]:
    for first, second in PAIRS:
        for delay in DELAYS:
            yield _case(first, second, delay)
    for name, text in LOCKS.items():
        yield _stale(name, text)


def _words(scene: Scene, verb: str) -> list[object]:
    if verb in WORKS:
        return WORKS[verb].words(scene)
    return [verb, *scene.world.long_recipe, "--out", scene.folder / "run"]


def _case(first: str, second: str, delay: float) -> Case:
    def play(scene: Scene) -> list[Fault]:
        # The second command's words before the first one's start: the report's arrange the scene.
        words = _words(scene, second), _words(scene, first)
        one = scene.start(*words[1])
        if delay:
            one.wait(delay)
        other = scene.start(*words[0])
        ends = [scene.finish(one, SECONDS), scene.finish(other, SECONDS)]
        worked = [verb for verb, end in zip((first, second), ends, strict=True) if end.code == 0]
        return [*_judge(ends), *scene.orphans(), *_outcome(scene, worked)]

    return Case("two-at-once", f"{first}+{second}/{delay:g}s", play)


def _judge(ends: list[Done]) -> list[Fault]:
    """Who was refused says so and names the owner; who came when the other was done simply works."""
    faults = [fault for done in ends for fault in judge(done, FINE if done.code == 0 else REFUSED)]
    if all(done.code != 0 for done in ends):
        faults.append(Fault("code", "neither command worked"))
    for done in ends:
        if done.code == 2 and not re.search(r"\bprocess \d+|\bpid \d+", done.stderr):
            faults.append(Fault("message", f"does not say which process holds the run: {done.stderr[-200:].strip()}"))
    return faults


def _outcome(scene: Scene, worked: list[str]) -> list[Fault]:
    """Every training was done once, and the result of the commands that were not refused is the undisturbed one."""
    run, faults = scene.folder / "run", []
    for path in sorted(run.glob("jobs/*/stages/*/records.jsonl")):
        steps = re.findall(r'"step": (\d+)', path.read_text())
        if [int(step) for step in steps] != list(range(1, len(steps) + 1)):
            faults.append(Fault("wrong", f"{path.parent.parent.parent.name} was trained twice: its records go {steps[:9]}"))
    for verb in {"distill" if verb == "demo" else verb for verb in worked} & WORKS.keys():
        faults += same_tensors(run, WORKS[verb].expected(scene.world))
    return faults


LOCKS: dict[str, Callable[[Path], None]] = {
    "recycled-number": lambda status: _claim(status, pid=1),
    "own-number": lambda status: _claim(status, pid=2**22 - 1),
    "another-start": lambda status: _claim(status, pid=1, started=1.0),
}


def _claim(status: Path, **facts: float) -> None:
    """The job says that it runs, as a machine that lost its power leaves it."""
    import json

    value = json.loads(status.read_text())
    status.write_text(json.dumps(value | {"state": "running"} | facts))


def _stale(name: str, claim: Callable[[Path], None]) -> Case:
    """A run whose owner is provably gone is taken over, and nobody is advised to end a stranger's process."""

    def play(scene: Scene) -> list[Fault]:
        run = scene.copy("halted")
        for status in run.glob("jobs/student-*/status.json"):
            claim(status)
        done = scene.run("distill", *scene.world.long_recipe, "--out", run, seconds=SECONDS)
        return judge(done, FINE) + (same_tensors(run, scene.world.long_tensors) if done.code == 0 else [])

    return Case("two-at-once", f"stale/{name}", play)
