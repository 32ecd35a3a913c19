"""The demo over several seeds: every ratio with mean and spread, against the targets. Run on an idle machine.

    python benchmarks/seeds.py --seeds 0 1 2            # about 5 minutes a seed on 2 CPU cores
    python benchmarks/seeds.py --recipe fashion --out runs/fashion-seeds
    python benchmarks/seeds.py --only-table             # print the table of the runs that exist

Longer training for the question at which length, if any, the cohort overtakes one student of equal total updates:

    python benchmarks/seeds.py --seeds 0 --out runs/x4 --set dm.num_updates=2400

The rows are those of the recipe; another one is an override like any:

    python benchmarks/seeds.py --set 'rows.cohort-small-batch={equal: total-images, batch: share}'
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msd.errors import MsdError
from msd.evaluation.results import baseline_names, equality, headline, other_metrics, ratio, read_metrics


@dataclass(frozen=True)
class Target:
    words: str
    met: Callable[[float], bool]


@dataclass(frozen=True)
class Promises:
    """What a recipe promises of every seed. Nothing of a baseline but the single student of equal updates each."""

    over_single: Target
    over_teacher: Target
    accuracy: Target
    """Of the main row's labels: as such, or as a difference from the reference's where `is_relative`."""
    wall_seconds: Target
    training_seconds: Target | None = None
    is_relative: bool = False


def at_most(limit: float) -> Target:
    return Target(f"<= {limit}", lambda value: value <= limit)


def at_least(limit: float) -> Target:
    return Target(f">= {limit}", lambda value: value >= limit)


FAST, FREE_ROUTING = at_least(30), Target("< 0.01", lambda value: value < 0.01)
PROMISES = {
    "digits": Promises(at_most(0.85), at_most(1.6), at_least(0.97), at_most(300), at_most(150)),
    "fashion": Promises(at_most(0.9), at_most(2.0), at_least(-0.02), at_most(1500), is_relative=True),
}

Measures = dict[str, tuple[float, Target | None]]


def measures(metrics: Mapping[str, Any]) -> Measures:
    """Every number of one run, with what is promised of it; rows have the names that metrics.json gives them."""
    head, rows = headline(metrics), metrics["rows"]
    promises = PROMISES.get(metrics["recipe"])
    main, reference = head["main"], head["reference"]
    found: dict[str, tuple[float | None, Target | None]] = {}
    for line in head["baselines"]:
        held = f", {words}" if (words := equality(line)) else ""
        alone = line["equal"] == "updates-per-student" and rows[line["name"]].get("num_students") == 1
        found[f"FD {main} / {line['name']}{held}"] = (line["ratio"], promises.over_single if promises and alone else None)
    found[f"FD {main} / {reference}"] = (head["over_reference"], promises and promises.over_teacher)
    found |= _accuracy(main, head["label_accuracy"], reference, rows[reference].get("label_accuracy"), promises)
    for other in other_metrics(rows):
        for name in baseline_names(metrics):
            ours, theirs = ((rows[one].get("others") or {}).get(other) for one in (main, name))
            found[f"{other} {main} / {name}"] = (ratio(ours, theirs), None)
    for size, speedup in head["speedups"].items():
        found[f"latency {reference} / {main}, batch {size}"] = (speedup, FAST)
    for size, share in head["routing_shares"].items():
        found[f"routing / forward, batch {size}"] = (share, FREE_ROUTING)
    found["wall seconds of training and evaluation"] = (head["wall_seconds"], promises and promises.wall_seconds)
    training = promises and promises.training_seconds
    found[f"wall seconds of the students of {main}"] = (head["training_wall_seconds"], training)
    found |= {f"FD {name}": (row.get("frechet_distance"), None) for name, row in rows.items()}
    return {name: (value, target) for name, (value, target) in found.items() if value is not None}


def _accuracy(
    main: str, ours: float | None, reference: str, theirs: float | None, promises: Promises | None
) -> dict[str, tuple[float | None, Target | None]]:
    is_relative = promises is not None and promises.is_relative
    found: dict[str, tuple[float | None, Target | None]] = {
        f"label accuracy of {main}": (ours, promises.accuracy if promises and not is_relative else None)
    }
    if is_relative and ours is not None and theirs is not None:
        found[f"label accuracy of {main} - {reference}"] = (ours - theirs, promises and promises.accuracy)
    return found


def print_table(seeds: list[int], runs: list[Measures]) -> None:
    """A markdown table: a line a number, a column a seed; a dash where a run did not measure it."""
    print(f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | spread | target | met |")
    print("|---" * (len(seeds) + 5) + "|")
    targets = {name: target for run in runs for name, (_, target) in run.items()}
    for name, target in targets.items():
        values = [run[name][0] for run in runs if name in run]
        cells = [f"{run[name][0]:.3g}" if name in run else "\u2013" for run in runs]
        mean, spread = statistics.mean(values), max(values) - min(values)
        promised, verdict = (target.words, _verdict(target, values)) if target else ("reported", "")
        print(f"| {name} | {' | '.join(cells)} | {mean:.3g} | {spread:.2g} | {promised} | {verdict} |")


def _verdict(target: Target, values: list[float]) -> str:
    if all(map(target.met, values)):
        return "yes"
    return "mean only" if target.met(statistics.mean(values)) else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only-table", action="store_true")
    options = parser.parse_args()
    if not options.only_table:
        for seed in options.seeds:
            command = [sys.executable, "-m", "msd.cli", "demo", options.recipe, "--seed", str(seed)]
            command += ["--out", str(options.out / str(seed))]
            command += [word for override in options.overrides for word in ("--set", override)]
            subprocess.run(command, check=True)
    try:
        runs = [measures(read_metrics(options.out / str(seed) / "report" / "metrics.json")) for seed in options.seeds]
    except MsdError as error:
        parser.error(str(error))
    print_table(options.seeds, runs)


if __name__ == "__main__":
    main()
