"""From measured seconds to the lengths of a recipe: which network, how many updates, pairs and samples a budget pays for.

Pure arithmetic, without torch and without a clock (`commands/timing.py` measures). What decides is written beside it; what
nobody looked for a better value of is called "not tuned".
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msd.errors import RecipeError
from msd.recipe import NetworkSection

WIDTHS = (8, 16, 24, 32, 48, 64)
"""Channels of the finest level, of the networks that are tried."""
FOLDS_FROM, FOLDS_MORE_FROM = 16, 64
"""Sizes from which 2x2 and 4x4 pixels are folded: 2x2 halves the time at 28x28 and 32x32 (measured), 4x4 is not tuned."""
MULTIPLIERS = (1.0, 1.5, 2.0, 2.0)
DM_BATCH = REGRESSION_BATCH = 16
"""Twice the updates of half the batch take a quarter more time and are worth far more to specialists: measured on letters at
32x32 (docs/results.md), where 32, the batch of the packaged recipes, hardly told a cohort from a single student."""
HEAD_START, OWN_SHARE = 0.8, 0.9

SHARES = {"teacher": 0.48, "pairs": 0.06, "students": 0.34, "evaluation": 0.12}
"""How the time that is not fixed is divided. The digits recipe spends 240 s, 25 s, 215 s and 60 s. Not tuned elsewhere."""
FEWEST = {"teacher": 100, "pairs": 400, "students": 30, "evaluation": 200}
"""Updates, pairs, updates and samples below which a recipe would show nothing at all."""
MOST = {"teacher": 200_000, "pairs": 60_000, "students": 20_000, "evaluation": 10_000}
ENOUGH_IMAGES, ENOUGH_PARAMETERS = 250_000, 174_000
"""A teacher of so many parameters needs about so many images (with repetition) to be worth distilling; a larger one more,
by the root of its size. The digits teacher had 512,000, and 128,000 were too few on 28x28 digits. Not tuned elsewhere."""
ENOUGH_UPDATES, ENOUGH_FOR_ALL_ROWS = 640, 480
"""A student's updates below which a smaller network is taken, and below which the longest row is left out."""
PARAMETERS_AN_IMAGE, ALWAYS_ALLOWED = 250, 200_000
"""A network of more parameters than this for each real image is not tried: it would learn them by heart. Not tuned."""

TEACHER_EVALUATIONS = 35 + 4 + 1
"""Of the network, an image, in the three ways in which a table samples its teacher."""
LATENCY = (((1, 16, 256), 20), ((1, 16, 64), 10), ((1, 16), 5), ((1,), 3))
"""Batch sizes at which requests are timed, and how often; the first that takes at most LATENCY_SHARE of the time."""
LATENCY_SHARE = 0.05
SECONDS_A_CELL = 1.5
"""As long as one batch size is timed, unless a few requests take longer (`evaluation/latency.py`)."""
SECONDS_A_PIXEL = 6e-7
"""That an update of the feature network takes for each pixel of each image (5e-7 on idle cores, twice that on busy ones)."""
STARTS, PAGE = 4, 5.0
"""Interpreters that a demo starts one after the other (itself, the launcher, memory probes), and seconds for its page."""


@dataclass(frozen=True)
class Facts:
    """What a budget depends on of the images: their number by class, and the size and channels they are brought to."""

    counts: tuple[int, ...]
    size: int
    channels: int

    @property
    def num_images(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class NetworkCost:
    """What one network costs on this machine, in seconds of one core."""

    network: NetworkSection
    num_parameters: int
    teacher_update: float
    """Of `teacher_batch` images, while nothing else of ours runs."""
    evaluation: float
    """One image through the network, likewise."""
    regression_update: float
    """A student's update by regression alone, while as many train as will."""
    full_update: float
    """A student's and its critic's update, likewise."""


@dataclass(frozen=True)
class Costs:
    """What was measured: networks from the cheapest, how many processes train at a time, how long one takes to start."""

    networks: tuple[NetworkCost, ...]
    num_processes: int
    start: float
    busy: float = 1.0
    """Seconds by the clock for a second of work: above 1 where other programs want the same cores."""


@dataclass(frozen=True)
class Choice:
    """The network, lengths and rows that a budget pays for, and the seconds that each stage is expected to take."""

    cost: NetworkCost
    teacher_batch: int
    num_parts: int
    has_equal_total: bool
    """Whether the row of one student with all updates of the cohort is made; it takes as long as all of them."""
    num_updates: int
    num_pairs: int
    solver_steps: int
    dm_updates: int
    num_samples: int
    latency_batches: tuple[int, ...]
    latency_repeats: int
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def parse_budget(text: str) -> float:
    """Seconds of "90s", "30m", "2h" or "1h30m". Raises RecipeError."""
    match = re.fullmatch(
        r"(?:(\d{1,4}(?:\.\d+)?)h)?(?:(\d{1,6}(?:\.\d+)?)m)?(?:(\d{1,8}(?:\.\d+)?)s)?", text.strip().lower()
    )
    numbers = [float(value) if value else 0.0 for value in match.groups()] if match else []
    seconds = sum(value * unit for value, unit in zip(numbers, (3600, 60, 1), strict=True)) if numbers else 0.0
    if seconds <= 0:
        raise RecipeError(f"--budget {text[:40]!r} is not a time; write e.g. 90s, 30m, 2h or 1h30m.")
    return seconds


def duration(seconds: float) -> str:
    """As `parse_budget` reads it: to the second below three minutes, else to the minute."""
    if seconds < 180 and round(seconds) % 60:
        return f"{round(seconds)}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours and not minutes:
        return "1s"
    return f"{minutes}m" if not hours else f"{hours}h" + (f"{minutes}m" if minutes else "")


def networks_for(size: int) -> tuple[NetworkSection, ...]:
    """The networks that are tried for images of this size, the smallest first. Raises RecipeError for a size that none fits.

    Pixels are folded from 16x16 up; there are two levels at 8x8 places, three at 16x16, with attention in the middle block.
    """
    if size % 8 or not 8 <= size <= 128:
        near = min(128, max(8, 8 * round(size / 8)))
        raise RecipeError(f"--size {size} fits no network here, which halve it three times; choose {near} (8 to 128 by 8).")
    fold: Literal[1, 2, 4] = 1 if size < FOLDS_FROM else 2 if size < FOLDS_MORE_FROM else 4
    places = size // fold
    wanted = 2 if places <= 8 else 3 if places <= 24 else 4
    levels = min(wanted, 1 + (places & -places).bit_length() - 1)
    found = []
    for width in WIDTHS:
        channels_of = tuple(8 * math.floor(width * factor / 8 + 0.5) for factor in MULTIPLIERS[:levels])
        if levels == 2:
            channels_of = (width, 2 * width)
        groups = 4 if width < 16 else 8
        found.append(
            NetworkSection(block_out_channels=channels_of, norm_num_groups=groups, attention=levels >= 3, fold=fold)
        )
    return tuple(found)


def teacher_batch(network: NetworkSection, size: int) -> int:
    """Images of a teacher's update: 128 at up to 8x8 places, as the digits recipe; 64 above, as the prototype on 28x28."""
    return 128 if size // network.fold <= 8 else 64


def num_parts(num_classes: int) -> int:
    """Four students, as the paper mostly has, where each gets at least two classes; else two."""
    return min(num_classes, 4 if num_classes >= 8 else 2)


def solver_steps(size: int) -> int:
    """Heun steps of the pairs, enough on 8x8 digits and on Fashion-MNIST at 32x32 (measured: docs/results.md)."""
    return 8 if size <= 16 else 12


def is_too_large(num_parameters: int, facts: Facts) -> bool:
    """Whether a network would rather learn so few images by heart."""
    return num_parameters > max(ALWAYS_ALLOWED, PARAMETERS_AN_IMAGE * facts.num_images)


def enough_updates(cost: NetworkCost, facts: Facts) -> int:
    """Updates after which a teacher of this size is worth distilling."""
    images = ENOUGH_IMAGES * math.sqrt(cost.num_parameters / ENOUGH_PARAMETERS)
    return math.ceil(images / teacher_batch(cost.network, facts.size))


def plan_budget(seconds: float, measured: Costs, facts: Facts) -> Choice:
    """The largest network whose teacher and students get enough updates in `seconds`, with the lengths that fill them.

    Where no network gets enough, the smallest is taken, shorter and shorter, down to FEWEST. Raises RecipeError for a budget
    in which not even that fits, naming one in which it does.
    """
    possible = [cost for cost in measured.networks if not is_too_large(cost.num_parameters, facts)]
    possible = possible or list(measured.networks[:1])
    for cost in reversed(possible):
        choice = _filled(seconds, cost, measured, facts)
        if choice is not None and choice.dm_updates >= ENOUGH_UPDATES and choice.num_updates >= enough_updates(cost, facts):
            return choice
    choices = [choice for cost in possible if (choice := _filled(seconds, cost, measured, facts)) is not None]
    if not choices:
        smallest = min(_lengths(0, cost, measured, facts, rows=False).total for cost in possible)
        # A little more than the sum, since the next measurement will not give the very same seconds.
        step = 10 if smallest < 150 else 60
        smaller = ", or a smaller --size" if facts.size > 8 else ""
        wanted = duration(step * math.ceil(1.15 * smallest / step))
        raise RecipeError(
            f"--budget {duration(seconds)} is too short for images of {facts.size}x{facts.size} on this machine: the "
            f"smallest network with the fewest updates takes about {duration(smallest)}; give --budget {wanted}{smaller}."
        )
    # All are short of updates: the one that comes nearest to enough, the smaller where two are alike.
    return max(choices, key=lambda choice: min(1.0, choice.num_updates / enough_updates(choice.cost, facts)))


def _filled(seconds: float, cost: NetworkCost, measured: Costs, facts: Facts) -> Choice | None:
    """The lengths that fill `seconds` with this network, with all rows if they leave each enough; None if nothing fits."""
    whole = _fitted(seconds, cost, measured, facts, rows=True)
    if whole is not None and whole.dm_updates >= ENOUGH_FOR_ALL_ROWS:
        return whole
    return _fitted(seconds, cost, measured, facts, rows=False)


def _fitted(seconds: float, cost: NetworkCost, measured: Costs, facts: Facts, *, rows: bool) -> Choice | None:
    """By halving: what is to be divided among the stages so that all of it, limits and fixed parts too, is `seconds`."""
    low, high = 0.0, 4 * seconds + 1
    best = _lengths(low, cost, measured, facts, rows=rows)
    if best.total > seconds:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        choice = _lengths(middle, cost, measured, facts, rows=rows)
        if choice.total <= seconds:
            low, best = middle, choice
        else:
            high = middle
    return best


def _lengths(divided: float, cost: NetworkCost, measured: Costs, facts: Facts, *, rows: bool) -> Choice:
    """Lengths when `divided` seconds are shared among the stages by SHARES, within FEWEST and MOST; and what they take."""
    parts, steps = num_parts(len(facts.counts)), solver_steps(facts.size)
    num_rows = 3 if rows else 2
    pair = cost.evaluation * (2 * steps - 1)
    average = HEAD_START * cost.regression_update + (1 - HEAD_START) * cost.full_update
    student = average * _turns(parts, measured.num_processes, rows)
    sample = cost.evaluation * (TEACHER_EVALUATIONS + num_rows)
    latency, latency_seconds = _latency(LATENCY_SHARE * divided, cost, num_rows)

    def length(stage: str, each: float, step: int, least: int = 0) -> int:
        paid = math.floor(SHARES[stage] * divided / each / step) * step
        return min(MOST[stage], max(FEWEST[stage], least, paid))

    num_updates = length("teacher", cost.teacher_update, 10)
    num_pairs = length("pairs", pair, 100, least=_fewest_pairs(facts, parts))
    dm_updates = length("students", student, 5)
    num_samples = length("evaluation", sample, 100)
    seconds = {
        "start": measured.start * STARTS + PAGE,
        "features": features_seconds(facts),
        "teacher": num_updates * cost.teacher_update,
        "pairs": num_pairs * pair,
        "students": dm_updates * student,
        "evaluation": num_samples * sample + latency_seconds + _scoring(facts, num_samples, 3 + num_rows),
    }
    return Choice(
        cost=cost,
        teacher_batch=teacher_batch(cost.network, facts.size),
        num_parts=parts,
        has_equal_total=rows,
        num_updates=num_updates,
        num_pairs=num_pairs,
        solver_steps=steps,
        dm_updates=dm_updates,
        num_samples=num_samples,
        latency_batches=latency[0],
        latency_repeats=latency[1],
        seconds=seconds,
    )


def _turns(parts: int, num_processes: int, rows: bool) -> float:
    """How many times a student's training passes by the clock until all are trained, side by side as the fleet does it."""
    return makespan([1.0] * (parts + 1) + [float(parts)] * rows, num_processes)


def makespan(jobs: Sequence[float], num_processes: int) -> float:
    """When the last of `jobs` ends, each taken by the first free of `num_processes`, the longest first."""
    free = [0.0] * max(1, num_processes)
    for job in sorted(jobs, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def smallest_share(facts: Facts) -> float:
    """How often the rarest part is asked for when neighbouring classes are put together, as `contiguous` does."""
    parts = num_parts(len(facts.counts))
    small, larger = divmod(len(facts.counts), parts)
    shares, start = [], 0
    for part in range(parts):
        end = start + small + (part < larger)
        shares.append(sum(facts.counts[start:end]) / max(1, facts.num_images))
        start = end
    return min(shares)


def _fewest_pairs(facts: Facts, parts: int) -> int:
    """Enough that the rarest part has twice a batch of its own, unless that would be absurdly many."""
    wanted = 2 * REGRESSION_BATCH / max(smallest_share(facts), 1e-9)
    return 0 if wanted > MOST["pairs"] / 4 else 100 * math.ceil(wanted / 100)


def needs_replacement(choice: Choice, facts: Facts) -> bool:
    """Whether a part may have fewer pairs of its own than a batch asks for."""
    return smallest_share(facts) * choice.num_pairs < 1.5 * OWN_SHARE * REGRESSION_BATCH


def _latency(most: float, cost: NetworkCost, num_rows: int) -> tuple[tuple[tuple[int, ...], int], float]:
    """The first of LATENCY that takes at most `most` seconds, or the last; and what it takes."""
    evaluations = [35, 4, 1, *[1] * num_rows]
    seconds = 0.0
    for batches, repeats in LATENCY:
        seconds = 0.0
        for batch in batches:
            for number in evaluations:
                request = max(number * 1e-3, number * batch * cost.evaluation)
                timed = min(repeats, max(2, math.ceil(SECONDS_A_CELL / request)))
                seconds += (1 + timed) * request
        if seconds <= most:
            return (batches, repeats), seconds
    return LATENCY[-1], seconds


def features_seconds(facts: Facts) -> float:
    """A rough time for the feature network: its training (300 to 2,500 updates of 128), and the features of all images."""
    image = SECONDS_A_PIXEL * facts.size**2
    trained = min(320_000, max(38_400, 48 * facts.num_images))
    return 2 + image * (trained + facts.num_images / 3)


def _scoring(facts: Facts, num_samples: int, num_rows: int) -> float:
    """A rough time for the distances of all rows: mostly the nearest real image of each generated one, and kernels."""
    pixels = facts.size**2 * facts.channels
    return num_rows * (2.5 + facts.num_images * num_samples * (1e-8 + 5e-11 * pixels))
