"""What cases are played with, made once: a tiny teacher, a finished run of it, and one that was stopped in training."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.abuse.process import Done, Running, Start
from benchmarks.abuse.results import images, scores, tensors

TINY = (
    *("--set", "pairs.num_pairs=32", "--set", "pairs.shard_size=16", "--set", "pairs.solver.num_steps=2"),
    *("--set", "dm.num_updates=4", "--set", "evaluation.num_samples=60", "--set", "evaluation.latency_batches=[1]"),
    *("--set", "evaluation.latency_repeats=1", "--set", "pretrain.num_updates=2", "--set", "pretrain.batch_size=8"),
    *("--set", "rows={single: {partition.num_parts: 1, equal: updates-per-student}}"),
)
LONG = (
    *("--set", "rows={}", "--set", "stages=[tsm,dm,adm]", "--set", "student.start=random", "--set", "dm.num_updates=12"),
    *("--set", "tsm.num_updates=6", "--set", "tsm.batch_size=8", "--set", "adm.num_updates=4"),
    *("--set", "adm.discriminator_warmup=2", "--set", "adm.critic_turns=1", "--set", "adm.batch_size=8"),
    *("--set", "adm.regression.batch_size=8"),
)
"""On top of TINY: so many steps, in all stages, that a signal meets one."""
SAMPLED = ("--labels", "0,3,7", "--num", "2", "--seed", "5")
SECONDS = 300.0
ATTEMPTS = 10
"""At stopping a training in its second stage."""


@dataclass(frozen=True)
class World:
    """Folders `teacher`, `run`, `whole` (a run of all stages), `halted` (one that was stopped in its second stage) below
    `folder`, and the results of undisturbed runs."""

    folder: Path
    run_tensors: dict[str, str] = field(default_factory=dict)
    long_tensors: dict[str, str] = field(default_factory=dict)
    """Of `whole`, which `halted` would have become."""
    samples: str = ""
    """What `msd sample COHORT` with SAMPLED makes."""
    scores: dict[str, str] = field(default_factory=dict)

    @property
    def teacher(self) -> Path:
        return self.folder / "teacher"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def recipe(self) -> tuple[str, ...]:
        """The recipe of `run`, as verbs take it."""
        return ("smoke", *TINY, "--set", f"teacher.source={self.teacher}")

    @property
    def long_recipe(self) -> tuple[str, ...]:
        return (*self.recipe, *LONG)


def open_world(folder: Path) -> World:
    """What lies in `folder`, or else is made there now."""
    facts = folder / "world.json"
    if facts.exists():
        return World(folder, **json.loads(facts.read_text()))
    folder.mkdir(parents=True)
    world = build_world(folder)
    facts.write_text(json.dumps({key: value for key, value in asdict(world).items() if key != "folder"}))
    return world


def build_world(folder: Path) -> World:
    """Make everything, in order; about a minute. Raises RuntimeError when a command fails that nothing disturbs."""
    world = World(folder)
    _command(folder, "pretrain", "smoke", *TINY, "--out", folder / "pretrained")
    (folder / "pretrained" / "teacher").rename(folder / "teacher")
    _command(folder, "demo", *world.recipe, "--out", world.run)
    _command(folder, "sample", world.run / "cohort", *SAMPLED, "--out", folder / "expected.npz")
    _command(folder, "distill", *world.long_recipe, "--out", folder / "whole")
    _halt(folder, "distill", *world.long_recipe, "--out", folder / "halted")
    return World(
        folder,
        run_tensors=tensors(world.run),
        long_tensors=tensors(folder / "whole"),
        samples=images(folder / "expected.npz"),
        scores=scores(json.loads((world.run / "report" / "metrics.json").read_text())),
    )


def _start(folder: Path, arguments: tuple[object, ...]) -> Running:
    number = len(list(folder.glob("log-*")))
    return Running(Start(tuple(map(str, arguments)), folder), folder / f"log-{number}")


def _command(folder: Path, *arguments: object) -> Done:
    done = _start(folder, arguments).finish(SECONDS)
    if done.code != 0:
        raise RuntimeError(f"msd {' '.join(done.arguments)} ended with code {done.code}: {done.stderr}")
    return done


def _halt(folder: Path, *arguments: object) -> None:
    """Stop a command once a student has checkpoints of its second stage.

    A stage of so few steps may end before the signal is heard, and its checkpoints go: then all of it is done again.
    """
    halted, pattern = Path(str(arguments[-1])), "jobs/student-*/stages/1-*/checkpoints/checkpoints.json"
    for _ in range(ATTEMPTS):
        running = _start(folder, arguments)
        if not running.wait(SECONDS, stop=lambda: len(list(halted.glob(pattern))) == 1):
            running.signal(signal.SIGTERM)
        said = running.finish(SECONDS).stderr
        if list(halted.glob(pattern)):
            return
        shutil.rmtree(halted, ignore_errors=True)
    raise RuntimeError(f"the training to be stopped was over too soon, {ATTEMPTS} times: {said}")
