"""Full and small disks, limits of file size, and folders that cannot be written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.abuse.case import Case, Fault, Skipped
from benchmarks.abuse.judge import FINE, Expect, judge
from benchmarks.abuse.process import Done
from benchmarks.abuse.results import same_tensors
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.system import mount_tmpfs, unmount
from benchmarks.abuse.tree import differences, snapshot
from benchmarks.abuse.verbs import TRAINING_SECONDS
from benchmarks.abuse.world import TINY, World

FULL = Expect((1, 2))
SIZES = {"4k": 4096, "16k": 16384, "64k": 65536, "256k": 262144, "1m": 2**20, "2m": 2**21}
ROOM = 64 * 2**20
NO_SPACE = ("No space left", "disk", "space", "more than a file may have")

Words = Callable[[Scene, Path], list[object]]

WRITERS: dict[str, Words] = {
    "pretrain": lambda scene, run: ["pretrain", "smoke", *TINY, "--out", run],
    "pairs": lambda scene, run: ["pairs", *scene.world.recipe, "--out", run],
    "distill": lambda scene, run: ["distill", *scene.world.recipe, "--set", "rows={}", "--out", run],
}
FROM_A_RUN: dict[str, Words] = {
    "sample": lambda scene, out: ["sample", scene.world.run / "cohort", "--num", "64", "--out", out / "made.npz"],
    "eval": lambda scene, out: ["eval", scene.world.run / "cohort", "--out", out / "made.json"],
    "report": lambda scene, out: ["report", scene.finished(), "--out", out / "page"],
}


def cases(world: World) -> Iterator[Case]:
    for verb, words in WRITERS.items():
        for name, size in SIZES.items():
            yield _small(verb, words, name, size)
            yield _limited(verb, words, name, size)
        yield _closed(verb, words)
    for verb, words in FROM_A_RUN.items():
        yield _full(verb, words)
        yield _limited_once(verb, words)
    for verb in ("status", "plan", "partition", "recipes", "sample"):
        for stdout in ("full", "gone", "closed"):
            yield _stdout(verb, stdout)


def _said_so(done: Done, words: tuple[str, ...] = NO_SPACE) -> list[Fault]:
    if done.code == 0 or any(word in done.stderr for word in words):
        return []
    return [Fault("message", f"does not say that the disk is full: {done.stderr.strip()[-200:]}")]


def _mounted(scene: Scene, size: int) -> Path:
    disk = scene.folder / "disk"
    if not mount_tmpfs(disk, size):
        raise Skipped("mounting a small disk is not permitted here")
    return disk


def _small(verb: str, words: Words, name: str, size: int) -> Case:
    """A disk too small: it says so, what is there stays whole, and with room the same command goes on."""

    def play(scene: Scene) -> list[Fault]:
        disk = _mounted(scene, size)
        run = scene.folder / "run"
        try:
            done = scene.run(*words(scene, disk / "run"), seconds=TRAINING_SECONDS)
            faults = judge(done, Expect((0, 1, 2))) + _said_so(done) + scene.leftovers()
            if (disk / "run").exists():
                shutil.copytree(disk / "run", run)
        finally:
            unmount(disk)
        again = scene.run(*words(scene, run), seconds=TRAINING_SECONDS)
        return faults + _undisturbed(scene, verb, run, again)

    return Case("disk", f"{verb}/disk-of-{name}", play)


def _limited(verb: str, words: Words, name: str, size: int) -> Case:
    """`ulimit -f`: no file may grow beyond."""

    def play(scene: Scene) -> list[Fault]:
        run = scene.folder / "run"
        done = scene.run(*words(scene, run), seconds=TRAINING_SECONDS, file_bytes=size)
        faults = judge(done, Expect((0, 1, 2))) + _said_so(done) + scene.leftovers()
        return faults + _undisturbed(scene, verb, run, scene.run(*words(scene, run), seconds=TRAINING_SECONDS))

    return Case("disk", f"{verb}/files-of-{name}", play)


def _undisturbed(scene: Scene, verb: str, run: Path, again: Done) -> list[Fault]:
    faults = judge(again, FINE)
    if again.code != 0 or verb == "pretrain":
        return faults
    expected = {key: value for key, value in scene.world.run_tensors.items() if "single" not in key}
    return faults + same_tensors(run, expected, only="jobs/pairs-" if verb == "pairs" else "")


def _closed(verb: str, words: Words) -> Case:
    """A folder that became read-only in a run that is there."""

    def play(scene: Scene) -> list[Fault]:
        run = scene.copy("halted", "run")
        for path in [run, *run.rglob("*")]:
            if path.is_dir():
                path.chmod(0o555)
        before = snapshot(run)
        done = scene.run(*words(scene, run), seconds=TRAINING_SECONDS, is_humble=True)
        return judge(done, FULL) + differences(before, snapshot(run))

    return Case("disk", f"{verb}/read-only-run", play)


def _full(verb: str, words: Words) -> Case:
    """No room for the result: an error before minutes of work or after, but no half of it."""

    def play(scene: Scene) -> list[Fault]:
        disk = _mounted(scene, 4096)
        (disk / "filler").write_bytes(bytes(4096))
        try:
            before = snapshot(disk)
            done = scene.run(*words(scene, disk), seconds=TRAINING_SECONDS)
            return judge(done, FULL) + _said_so(done) + differences(before, snapshot(disk)) + scene.leftovers()
        finally:
            unmount(disk)

    return Case("disk", f"{verb}/full-disk", play)


def _limited_once(verb: str, words: Words) -> Case:
    def play(scene: Scene) -> list[Fault]:
        out = scene.work / "out"
        out.mkdir()
        before = snapshot(out)
        done = scene.run(*words(scene, out), seconds=TRAINING_SECONDS, file_bytes=300)
        faults = judge(done, FULL) + _said_so(done)
        return faults + (differences(before, snapshot(out)) if done.code != 0 else [])

    return Case("disk", f"{verb}/files-of-300", play)


def _stdout(verb: str, stdout: str) -> Case:
    """Nowhere to print: what was asked for on disk is done, and the end is a code, never a traceback."""

    def play(scene: Scene) -> list[Fault]:
        words: dict[str, list[object]] = {
            "status": ["status", scene.world.run],
            "plan": ["plan", *scene.world.recipe],
            "partition": ["partition", *scene.world.recipe, "--out", scene.folder / "run"],
            "recipes": ["recipes"],
            "sample": ["sample", scene.world.run / "cohort", "--num", "1", "--out", scene.work / "made.npz"],
        }
        done = scene.run(*words[verb], stdout=stdout)
        if stdout == "gone":  # the reader left: nothing need be said
            return judge(done, FINE) if done.code != 1 or "Traceback" in done.stderr else []
        faults = judge(done, Expect((2,)) if stdout == "full" else FINE)
        made = {"partition": scene.folder / "run" / "partition.json", "sample": scene.work / "made.npz"}
        if verb in made and not made[verb].exists():
            faults.append(Fault("wrong", "what was asked for was not written"))
        return faults

    return Case("disk", f"{verb}/stdout-{stdout}", play)
