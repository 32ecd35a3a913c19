"""Each verb on a copy of the finished (or halted) run: its command, and what is wrong with its result after exit code 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.abuse.case import SECONDS, Fault
from benchmarks.abuse.process import Done
from benchmarks.abuse.results import images, same_tensors, scores
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import SAMPLED

TRAINING_SECONDS = 25.0


@dataclass(frozen=True)
class Verb:
    """`command` gives the words for a run's folder, `wrong` looks at what came out."""

    command: Callable[[Scene, Path], tuple[object, ...]]
    wrong: Callable[[Scene, Path, Done], list[Fault]]
    seconds: float = SECONDS
    codes: tuple[int, ...] = (2,)
    """Of a failure."""


def _recipe(scene: Scene, run: Path) -> tuple[str, ...]:
    return scene.world.recipe if run.name == "run" else scene.world.long_recipe


def _writer(verb: str) -> Callable[[Scene, Path], tuple[object, ...]]:
    return lambda scene, run: (verb, *_recipe(scene, run), "--out", run)


def _wrong_distill(scene: Scene, run: Path, done: Done) -> list[Fault]:
    expected = scene.world.run_tensors if run.name == "run" else scene.world.long_tensors
    return [*same_tensors(run, expected), *_wrong_partition(scene, run, done)]


def _wrong_pairs(scene: Scene, run: Path, done: Done) -> list[Fault]:
    return same_tensors(run, scene.world.run_tensors, only="jobs/pairs-")


def _wrong_partition(scene: Scene, run: Path, done: Done) -> list[Fault]:
    same = _json(run / "partition.json") == _json(scene.world.run / "partition.json")
    return [] if same else [Fault("wrong", "partition.json is not the undisturbed one after exit code 0")]


def _wrong_status(scene: Scene, run: Path, done: Done) -> list[Fault]:
    try:
        found = json.loads(done.stdout)["jobs"]
    except (ValueError, KeyError, TypeError):
        return []  # what is no JSON was noted already
    expected = [path.parent.name for path in (run / "jobs").glob("*/job.json") if path.is_file()]
    return [Fault("wrong", f"status shows {len(found)} of {len(expected)} jobs")] if len(found) < len(expected) else []


def _wrong_sample(scene: Scene, run: Path, done: Done) -> list[Fault]:
    made = scene.work / "made.npz"
    if not made.is_file():
        return [Fault("wrong", "no images after exit code 0")]
    return [] if images(made) == scene.world.samples else [Fault("wrong", "other images after exit code 0")]


def _wrong_eval(scene: Scene, run: Path, done: Done) -> list[Fault]:
    return _wrong_scores(scene, scene.work / "made.json")


def _wrong_report(scene: Scene, run: Path, done: Done) -> list[Fault]:
    page = run / "report" / "index.html"
    if not page.is_file() or page.stat().st_size < 1000:
        return [Fault("wrong", "no page after exit code 0")]
    return []


def _wrong_scores(scene: Scene, path: Path) -> list[Fault]:
    metrics = _json(path)
    if not isinstance(metrics, dict):
        return [Fault("wrong", "no metrics after exit code 0")]
    found = scores(metrics)
    wrong = [name for name, value in found.items() if scene.world.scores.get(name, value) != value]
    return [Fault("wrong", f"other scores of {', '.join(wrong)} after exit code 0")] if wrong else []


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


VERBS = {
    "status": Verb(lambda scene, run: ("status", run, "--json"), _wrong_status),
    "partition": Verb(_writer("partition"), _wrong_partition),
    "pairs": Verb(_writer("pairs"), _wrong_pairs, TRAINING_SECONDS, (1, 2)),
    "distill": Verb(_writer("distill"), _wrong_distill, TRAINING_SECONDS, (1, 2)),
    "sample": Verb(lambda scene, run: ("sample", run / "cohort", *SAMPLED, "--out", scene.work / "made.npz"), _wrong_sample),
    "eval": Verb(lambda scene, run: ("eval", run / "cohort", "--out", scene.work / "made.json"), _wrong_eval, 20.0),
    "report": Verb(lambda scene, run: ("report", run), _wrong_report, 20.0),
}
