"""Signals at random moments: nobody and nothing is left behind, and the same command again ends with the same bytes."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import FINE, Expect, judge
from benchmarks.abuse.results import same_tensors, tensors
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import TINY, World

SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "KILL": signal.SIGKILL}
"""SIGKILL goes to the command alone, whose workers must notice; the others to its whole group, as a terminal sends them."""
STOPPED = Expect((1,))
MOMENTS = {"pretrain": 10, "pairs": 10, "distill": 20, "eval": 10, "report": 10}
SECONDS = 90.0
IMPORT_SECONDS = 2.0


@dataclass(frozen=True)
class Work:
    """A verb to be disturbed: its words, where it works, how long it may take, and what must come out."""

    words: Callable[[Scene], list[object]]
    place: Callable[[Scene], Path]
    duration: float
    """Of an undisturbed command, roughly, in seconds: moments lie in it."""
    expected: Callable[[World], dict[str, str]]


def _pretrain(scene: Scene) -> list[object]:
    return ["pretrain", "smoke", *TINY, "--out", scene.folder / "run"]


def _writer(verb: str) -> Callable[[Scene], list[object]]:
    return lambda scene: [verb, *scene.world.long_recipe, "--out", scene.folder / "run"]


def _eval(scene: Scene) -> list[object]:
    return ["eval", _finished(scene) / "cohort", "--out", scene.work / "made.json"]


def _report(scene: Scene) -> list[object]:
    is_first = not (scene.folder / "run").exists()
    run = _finished(scene)
    if is_first:  # so that it has something to do
        (run / "report" / "metrics.json").unlink()
    return ["report", run]


def _finished(scene: Scene) -> Path:
    run = scene.folder / "run"
    return run if run.exists() else scene.finished()


def _pretrained(world: World) -> dict[str, str]:
    found = tensors(world.folder / "pretrained")
    return {path: checksum for path, checksum in found.items() if path.startswith("jobs/")}


def _pairs(world: World) -> dict[str, str]:
    return {path: checksum for path, checksum in world.long_tensors.items() if path.startswith("jobs/pairs-")}


WORKS = {
    "pretrain": Work(_pretrain, lambda scene: scene.folder / "run", 12.0, _pretrained),
    "pairs": Work(_writer("pairs"), lambda scene: scene.folder / "run", 8.0, _pairs),
    "distill": Work(_writer("distill"), lambda scene: scene.folder / "run", 18.0, lambda world: world.long_tensors),
    "eval": Work(_eval, lambda scene: scene.folder / "run", 12.0, lambda world: world.run_tensors),
    "report": Work(_report, lambda scene: scene.folder / "run", 20.0, lambda world: world.run_tensors),
}


def cases(world: World) -> Iterator[Case]:
    source = random.Random("moments")
    for verb, num in MOMENTS.items():
        for index in range(num):
            name = list(SIGNALS)[index % len(SIGNALS)]
            yield _case(verb, name, source.random(), is_cold=True)
    for name in SIGNALS:
        for index in range(3):
            yield _case("distill", name, source.random(), is_cold=False)
            yield _launch(name, delay=0.004 * index)


def _case(verb: str, name: str, share: float, *, is_cold: bool) -> Case:
    """Disturb the command after a share of its usual duration. `is_cold` starts it as users do, imports and all."""
    work = WORKS[verb]
    moment = share * (work.duration if is_cold else work.duration / 4)

    def play(scene: Scene) -> list[Fault]:
        running = scene.start(*work.words(scene), is_cold=is_cold)
        running.wait(SECONDS, stop=running.listens)
        running.wait(moment)
        return _disturb(scene, running, name, work)

    return Case("signals", f"{verb}/{name}-{'cold' if is_cold else 'warm'}-{share:.3f}", play, is_slow=is_cold)


def _launch(name: str, delay: float) -> Case:
    """Disturb it just after it has started a worker, whose folder then appears."""

    def play(scene: Scene) -> list[Fault]:
        work = WORKS["distill"]
        running = scene.start(*work.words(scene), is_cold=True)
        running.wait(SECONDS, stop=lambda: bool(list(work.place(scene).glob("jobs/student-*/log.txt"))))
        if delay:
            running.wait(0, stop=lambda: True)
            _pause(delay)
        return _disturb(scene, running, name, work)

    return Case("signals", f"distill/{name}-at-launch-{delay * 1000:.0f}ms", play, is_slow=True)


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)


def _disturb(scene: Scene, running, name: str, work: Work) -> list[Fault]:
    """Send the signal, see how the command ends, look for whom it left behind, and run it again."""
    was_over = running.is_over()
    running.kill_alone() if name == "KILL" else running.signal(SIGNALS[name])
    done = scene.finish(running, SECONDS)
    faults = [] if was_over or name == "KILL" else _ended(done, name)
    faults += scene.orphans()
    again = scene.run(*work.words(scene), seconds=SECONDS)
    faults += judge(again, FINE)
    if again.code == 0:
        faults += same_tensors(work.place(scene), work.expected(scene.world))
    return faults


def _ended(done, name: str) -> list[Fault]:
    """A stopped command says so in a sentence; one that had nothing left to stop may end well. Before Python runs any of
    our lines and after the last, the signal ends it without a word."""
    if done.code == 0:
        return []
    if done.code == -SIGNALS[name] and (done.stdout.strip() or (done.seconds < IMPORT_SECONDS and not done.stderr.strip())):
        return []
    return judge(done, STOPPED)
