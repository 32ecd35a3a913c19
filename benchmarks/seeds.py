"""The demo over several seeds: every ratio with mean and spread, against the targets. Run on an idle machine.

    python benchmarks/seeds.py --seeds 0 1 2            # about 5 minutes a seed on 2 CPU cores
    python benchmarks/seeds.py --only-table             # print the table of the runs that exist

Longer training for the question at which length, if any, the cohort overtakes one student of equal total updates:

    python benchmarks/seeds.py --seeds 0 --out runs/x4 --set dm.num_updates=2400
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Metrics = dict[str, Any]


def ratio(numerator: str, denominator: str) -> Callable[[Metrics], float]:
    return lambda metrics: metrics["rows"][numerator]["frechet_distance"] / metrics["rows"][denominator]["frechet_distance"]


def speedup(batch: str) -> Callable[[Metrics], float]:
    def measure(metrics: Metrics) -> float:
        rows = metrics["rows"]
        return rows["teacher-heun18"]["latency_ms"][batch] / rows["cohort"]["latency_ms"][batch]

    return measure


MEASURES: dict[str, tuple[Callable[[Metrics], float], Callable[[float], bool] | None]] = {
    "FD cohort / single, equal updates per student (<= 0.85)": (ratio("cohort", "single"), lambda value: value <= 0.85),
    "FD cohort / single, equal total updates (reported)": (ratio("cohort", "single-equal-total"), None),
    "FD cohort / teacher-heun18 (<= 1.6)": (ratio("cohort", "teacher-heun18"), lambda value: value <= 1.6),
    "label accuracy of the cohort (>= 0.97)": (
        lambda metrics: metrics["rows"]["cohort"]["label_accuracy"],
        lambda value: value >= 0.97,
    ),
    "latency teacher-heun18 / cohort, batch 1 (>= 30)": (speedup("1"), lambda value: value >= 30),
    "latency teacher-heun18 / cohort, batch 256 (>= 30)": (speedup("256"), lambda value: value >= 30),
    "routing / forward, batch 16 (< 0.01)": (
        lambda metrics: metrics["routing_ms"]["16"] / metrics["rows"]["cohort"]["latency_ms"]["16"],
        lambda value: value < 0.01,
    ),
    "wall seconds of the demo (<= 300)": (lambda metrics: metrics["wall_seconds"], lambda value: value <= 300),
    "wall seconds of the four students (<= 150)": (
        lambda metrics: metrics["rows"]["cohort"]["training_wall_seconds"],
        lambda value: value <= 150,
    ),
    **{
        f"FD {row}": (lambda metrics, row=row: metrics["rows"][row]["frechet_distance"], None)
        for row in ("teacher-heun18", "teacher-euler4", "teacher-euler1", "single", "single-equal-total", "cohort")
    },
}


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
    found: list[Metrics] = []
    for seed in options.seeds:
        folder = options.out / str(seed)
        metrics = json.loads((folder / "report" / "metrics.json").read_text())
        found.append(metrics | {"timings": json.loads((folder / "timings.json").read_text())})
    print(f"| | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean | spread | met |")
    print("|---" * (len(found) + 4) + "|")
    for name, (measure, met) in MEASURES.items():
        values = [measure(metrics) for metrics in found]
        spread = max(values) - min(values)
        verdict = (
            "" if met is None else "yes" if all(map(met, values)) else "mean only" if met(statistics.mean(values)) else "no"
        )
        cells = " | ".join(f"{value:.3g}" for value in values)
        print(f"| {name} | {cells} | {statistics.mean(values):.3g} | {spread:.2g} | {verdict} |")


if __name__ == "__main__":
    main()
