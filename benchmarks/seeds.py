"""The demo over several seeds: every ratio with mean and spread, against the targets. Run on an idle machine.

    python benchmarks/seeds.py --seeds 0 1 2            # about 5 minutes a seed on 2 CPU cores
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
from msd.evaluation.results import equality, headline, read_metrics


@dataclass(frozen=True)
class Target:
    words: str
    met: Callable[[float], bool]


BETTER_THAN_ONE = Target("<= 0.85", lambda value: value <= 0.85)
"""Of the main row beside a single student of equal updates per student. Of other baselines nothing is promised."""
NEAR_THE_TEACHER = Target("<= 1.6", lambda value: value <= 1.6)
ACCURATE = Target(">= 0.97", lambda value: value >= 0.97)
FAST = Target(">= 30", lambda value: value >= 30)
FREE_ROUTING = Target("< 0.01", lambda value: value < 0.01)
SHORT_DEMO = Target("<= 300", lambda value: value <= 300)
SHORT_TRAINING = Target("<= 150", lambda value: value <= 150)

Measures = dict[str, tuple[float, Target | None]]


def measures(metrics: Mapping[str, Any]) -> Measures:
    """Every number of one run, with what is promised of it; rows have the names that metrics.json gives them."""
    head, rows = headline(metrics), metrics["rows"]
    main, reference = head["main"], head["reference"]
    found: dict[str, tuple[float | None, Target | None]] = {}
    for line in head["baselines"]:
        held = f", {words}" if (words := equality(line)) else ""
        alone = line["equal"] == "updates-per-student" and rows[line["name"]].get("num_students") == 1
        found[f"FD {main} / {line['name']}{held}"] = (line["ratio"], BETTER_THAN_ONE if alone else None)
    found[f"FD {main} / {reference}"] = (head["over_reference"], NEAR_THE_TEACHER)
    found[f"label accuracy of {main}"] = (head["label_accuracy"], ACCURATE)
    for size, speedup in head["speedups"].items():
        found[f"latency {reference} / {main}, batch {size}"] = (speedup, FAST)
    for size, share in head["routing_shares"].items():
        found[f"routing / forward, batch {size}"] = (share, FREE_ROUTING)
    found["wall seconds of training and evaluation"] = (head["wall_seconds"], SHORT_DEMO)
    found[f"wall seconds of the students of {main}"] = (head["training_wall_seconds"], SHORT_TRAINING)
    found |= {f"FD {name}": (row.get("frechet_distance"), None) for name, row in rows.items()}
    return {name: (value, target) for name, (value, target) in found.items() if value is not None}


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
