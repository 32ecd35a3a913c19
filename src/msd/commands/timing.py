"""Measures what updates of real networks cost on this machine, in a few seconds, for the plan of a budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from msd.commands import budget
from msd.commands.budget import DM_BATCH, SHARES, Costs, Facts, NetworkCost, enough_updates, is_too_large, teacher_batch
from msd.commands.timing_probe import FORKS, Question
from msd.errors import RunError
from msd.recipe import NetworkSection

Ask = Callable[[Question], dict[str, float]]
"""Times one network: gives the fields of a NetworkCost, `spent` (seconds of work) and `busy` (by the clock / of work)."""

SHARE_TO_MEASURE, LEAST_TO_MEASURE, MOST_TO_MEASURE = 0.002, 4.0, 60.0
"""Of the budget, and in seconds: how long networks are timed, the larger ones only while there is time."""
GROWTH = 2.0
"""How much longer the next network may take to time than the last."""
PATIENCE = 8.0
"""Where other programs are busy, measuring may take so many times as long by the clock."""


def measure(
    seconds: float, facts: Facts, num_processes: int, ask: Ask, start: float, clock: Callable[[], float] = time.perf_counter
) -> Costs:
    """Time the networks for these images, the smallest first, until one is too large for the budget or the set of images, or
    the time for measuring is over. At least one is timed. Raises RecipeError for a size that fits no network."""
    networks = budget.networks_for(facts.size)
    limit = min(MOST_TO_MEASURE, max(LEAST_TO_MEASURE, SHARE_TO_MEASURE * seconds))
    found: list[NetworkCost] = []
    busy: list[float] = []
    begin, used = clock(), 0.0
    for network in networks:
        answer = ask(_question(network, facts))
        busy.append(answer.pop("busy", 1.0))
        spent = answer.pop("spent", 0.0)
        cost = NetworkCost(network=network, **answer)  # pyright: ignore[reportArgumentType]
        found.append(cost)
        took, used = max(spent, (clock() - begin) / PATIENCE - used), max(used + spent, (clock() - begin) / PATIENCE)
        too_long = cost.teacher_update * enough_updates(cost, facts) > SHARES["teacher"] * seconds
        if too_long or is_too_large(cost.num_parameters, facts) or used + GROWTH * took > limit:
            break
    return Costs(tuple(found), num_processes, start, max(1.0, sum(busy) / len(busy)))


def _question(network: NetworkSection, facts: Facts) -> Question:
    return Question(
        network.model_dump(mode="json"),
        facts.channels,
        facts.size,
        len(facts.counts),
        teacher_batch(network, facts.size),
        DM_BATCH,
    )


class Probe:
    """The process that times networks; it begins to start when this is made, which takes seconds."""

    def __init__(self, num_processes: int):
        # Where processes cannot be forked, one alone is timed; it may then look faster than several side by side are.
        self.num_processes = num_processes
        command = [sys.executable, "-m", "msd.commands.timing_probe", str(num_processes if FORKS else 1)]
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
        )
        self._start: float | None = None

    @property
    def start(self) -> float:
        """Seconds of work until it could begin; waits for that."""
        if self._start is None:
            self._start = float(self._read()["start"])
        return self._start

    def ask(self, question: Question) -> dict[str, float]:
        """Raises RunError when the process has ended."""
        _ = self.start  # until then it does not listen
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(question)) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> RunError:
        self._process.kill()
        code = self._process.wait()
        return RunError(
            f"updates could not be timed (the process that does it ended with code {code}, as when memory runs out); "
            "try a smaller --size, or end other programs."
        )

    def close(self) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()


@contextmanager
def probing(num_processes: int) -> Iterator[Probe]:
    """A probe that ends with the block."""
    probe = Probe(num_processes)
    try:
        yield probe
    finally:
        probe.close()
