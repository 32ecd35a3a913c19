"""Plays cases, a few at a time, each in a process forked from this warm one."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.abuse.case import Case, Fault, Outcome
from benchmarks.abuse.scene import play
from benchmarks.abuse.system import kill_descendants
from benchmarks.abuse.world import World

CASE_SECONDS = 400.0
"""Beyond this a case's own process is at fault."""


def run_cases(
    cases: Sequence[Case],
    world: World,
    folder: Path,
    *,
    jobs: int = 1,
    patience: float = 1.0,
    keep: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """The outcome of each case, in the order given."""
    waiting = list(enumerate(cases))[::-1]
    running: dict[int, tuple[int, Case, float]] = {}
    found: dict[int, Outcome] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, case = waiting.pop()
                pid = os.fork()
                if pid == 0:
                    _child(case, world, folder / f"case-{number}", patience, keep)
                running[pid] = (number, case, time.monotonic())
            for pid, (number, case, begin) in list(running.items()):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    if time.monotonic() - begin < CASE_SECONDS * patience:
                        continue
                    _end(pid)
                del running[pid]
                found[number] = _collect(folder / f"case-{number}.outcome", case)
                on_outcome(found[number])
            time.sleep(0.002)
    finally:
        for pid in running:
            _end(pid)
    return [found[number] for number in sorted(found)]


def _end(pid: int) -> None:
    """A case's process, and all that it started."""
    kill_descendants(pid)
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _child(case: Case, world: World, place: Path, patience: float, keep: bool) -> None:
    try:
        outcome = play(case, world, place, patience=patience, keep=keep)
        place.with_suffix(".outcome").write_bytes(pickle.dumps(outcome))
    finally:
        os._exit(0)


def _collect(path: Path, case: Case) -> Outcome:
    try:
        outcome = pickle.loads(path.read_bytes())
        path.unlink()
    except (OSError, EOFError, pickle.UnpicklingError):
        return Outcome(case.id, case.group, faults=[Fault("harness", "the case's own process ended without a word")])
    return outcome


def save(outcomes: Iterable[Outcome], path: Path) -> None:
    """All details, as JSON."""
    path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
