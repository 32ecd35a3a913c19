"""Where one case plays: a folder of its own with copies of what it needs, and the commands it runs there."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.abuse.case import SECONDS, Case, Fault, Outcome, Skipped
from benchmarks.abuse.process import Done, Running, Start
from benchmarks.abuse.system import adopt_orphans, descendants, kill_descendants, reap
from benchmarks.abuse.tree import describe, leftovers
from benchmarks.abuse.world import World

GRACE_SECONDS = 2.0
"""So long may a worker take to notice that its parent is gone."""
USER_TEXT = "mine\n"


class Scene:
    """`patience` multiplies every limit of time, for machines that are busy."""

    def __init__(self, folder: Path, world: World, case: Case, patience: float = 1.0):
        self.folder, self.world, self.case, self.patience = folder, world, case, patience
        self.random = random.Random(case.id)
        self.transcript: list[str] = []
        self._kept: dict[Path, str] = {}
        self._number = 0
        (folder / "work").mkdir(parents=True)
        self._logs = folder.with_name(f"{folder.name}.logs")

    @property
    def work(self) -> Path:
        """Where commands are started."""
        return self.folder / "work"

    def copy(self, name: str, target: str = "") -> Path:
        """A copy of one of the world's folders."""
        place = self.folder / (target or name)
        shutil.copytree(self.world.folder / name, place, symlinks=True)
        return place

    def finished(self) -> Path:
        """A copy of the finished run, with files of the user's in it."""
        run = self.copy("run")
        for place in (run, run / "cohort", run / "report"):
            self.keep(place / "my-notes.txt")
        return run

    def keep(self, path: Path, content: str | bytes = USER_TEXT) -> Path:
        """A file of the user's, which must be the same at the end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.guard(path)
        return path

    def guard(self, path: Path) -> None:
        """What lies there is the user's."""
        self._kept[path] = describe(path)

    def start(self, *arguments: object, **options: Any) -> Running:
        self._number += 1
        words = tuple(str(word) for word in arguments)
        return Running(Start(words, options.pop("folder", self.work), **options), self._logs / str(self._number))

    def finish(self, running: Running, seconds: float = SECONDS) -> Done:
        done = running.finish(seconds * self.patience)
        self.transcript.append(
            f"$ msd {' '.join(done.arguments)}\n[{'killed' if done.hung else done.code}, {done.seconds:.1f} s]\n"
            f"{done.stdout[-1500:]}{done.stderr[-3000:]}"
        )
        return done

    def run(self, *arguments: object, seconds: float = SECONDS, **options: Any) -> Done:
        return self.finish(self.start(*arguments, **options), seconds)

    def call(self, action: Callable[[], object], seconds: float = SECONDS) -> Done:
        """Something in place of the command line, in a process of its own."""
        return self.finish(self.start(action=action), seconds)

    def aftermath(self) -> list[Fault]:
        """What holds of every case: nobody left, nothing left over, nothing of the user's gone."""
        faults = [*self.orphans(), *self.leftovers()]
        for path, content in self._kept.items():
            if not path.exists() and not path.is_symlink():
                faults.append(Fault("lost", f"{path.relative_to(self.folder)}, the user's, is gone"))
            elif describe(path) != content:
                faults.append(Fault("lost", f"{path.relative_to(self.folder)}, the user's, was changed"))
        return faults

    def leftovers(self) -> list[Fault]:
        """Temporary files that lie about now."""
        return leftovers(self.folder)

    def orphans(self) -> list[Fault]:
        """Processes that outlived their command; they are ended here."""
        reap()
        deadline = time.monotonic() + GRACE_SECONDS * self.patience
        while (left := descendants(os.getpid())) and time.monotonic() < deadline:
            reap()
            time.sleep(0.02)
        if not left:
            return []
        kill_descendants(os.getpid())
        return [Fault("orphan", f"{len(left)} processes were still there {GRACE_SECONDS:.0f} s after their command")]


def play(case: Case, world: World, folder: Path, *, patience: float = 1.0, keep: bool = False) -> Outcome:
    """Play one case in a process that adopts all that the case leaves behind."""
    adopt_orphans()
    begin, outcome = time.monotonic(), Outcome(case.id, case.group)
    scene = Scene(folder, world, case, patience)
    try:
        outcome.faults = [*case.play(scene), *scene.aftermath()]
    except Skipped as reason:
        outcome.skipped = str(reason)
    except Exception as error:
        import traceback

        outcome.faults = [Fault("harness", f"{type(error).__name__}: {error}")]
        scene.transcript.append(traceback.format_exc())
    finally:
        kill_descendants(os.getpid())
        if not keep:
            _remove(folder)
            _remove(folder.with_name(f"{folder.name}.logs"))
    outcome.transcript = scene.transcript
    outcome.seconds = round(time.monotonic() - begin, 2)
    return outcome


def _remove(folder: Path) -> None:
    for place, folders, _ in os.walk(folder):
        for name in folders:
            if not (path := Path(place, name)).is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
