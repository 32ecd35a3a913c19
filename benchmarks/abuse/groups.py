"""All groups of cases, and samples of them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from benchmarks.abuse import api, arguments, disk, files, images, inputs, rivals, settings, signals, surroundings
from benchmarks.abuse.case import Case
from benchmarks.abuse.world import World

GROUPS: tuple[Callable[[World], Iterable[Case]], ...] = (
    files.by_type,
    files.by_key,
    files.by_byte,
    inputs.cases,
    images.cases,
    arguments.cases,
    settings.cases,
    api.cases,
    surroundings.cases,
    disk.cases,
    rivals.cases,
    signals.cases,
)
"""A new group is a function that yields cases, and a line here."""


def all_cases(world: World) -> list[Case]:
    """In the order of the groups. Each has a name of its own."""
    cases = [case for group in GROUPS for case in group(world)]
    found = {case.id: case for case in cases}
    if len(found) != len(cases):
        twice = sorted({case.id for case in cases if found[case.id] is not case})
        raise ValueError(f"two cases have one name: {', '.join(twice)}")
    return cases


def sample(cases: Sequence[Case], num: int, seed: int) -> list[Case]:
    """So many of them, of every group its share but at least one; the same for the same seed."""
    source, by_group = random.Random(seed), defaultdict(list)
    for case in cases:
        by_group[case.group].append(case)
    chosen = {source.choice(group).id for group in by_group.values()}
    rest = [case for case in cases if case.id not in chosen]
    source.shuffle(rest)
    chosen |= {case.id for case in rest[: max(0, num - len(chosen))]}
    return [case for case in cases if case.id in chosen]
