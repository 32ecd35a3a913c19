"""CPU seconds of DM updates on the digits recipe, for two checkouts side by side, taken in turns.

    python benchmarks/update_cost.py CHECKOUT [OTHER] --updates 60 --rounds 5

Each round starts a fresh one-thread process per checkout, lets it make a DM stage of its shipped digits teacher with random
pairs, and measures `process_time` over full updates (no head start) and over head-start updates, after a warm-up. Prints the
median of the rounds in milliseconds an update, and the ratio to the first checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

NEW = """
from msd.recipe import DMSection, load_recipe
from msd.conditions.table import LabelConditions
from msd.data.pairs import PairSet
from msd.stages.dm import DistributionMatching
from msd.stages.materials import Materials
from msd.training.engine import Engine
from msd.training.loop import steps

def stage_steps(settings, sigma_init, teacher, partition, noise, keys, samples):
    from dataclasses import replace
    engine = Engine.on("cpu", 1)
    start = teacher.denoiser.copy()
    start.spec = replace(start.spec, sigma_init=sigma_init)
    parts = {"conditions": teacher.conditions, "partition": partition, "part": 1}
    pairs = PairSet(noise, keys, samples)
    materials = Materials(engine, 0, teacher=teacher.denoiser, start=start, pairs=pairs, **parts)
    return steps(DistributionMatching(settings, materials), engine, 0)

def settings_of(recipe):
    return recipe.dm, recipe.student.sigma_init
"""
OLD = """
from msd.recipe import DMSection, load_recipe
from msd.data.pairs import PairSet
from msd.stages.dm import DistributionMatching
from msd.training.engine import Engine

def stage_steps(settings, sigma_init, teacher, partition, noise, keys, samples):
    from msd.training import loop
    engine = Engine.on("cpu", 1)
    stage = DistributionMatching(settings, teacher.denoiser, partition, 1, PairSet(noise, keys, samples), engine)
    generator = engine.generator(0)
    for step in range(settings.num_updates):
        class One:
            name, num_steps, roles, turns = stage.name, step + 1, stage.roles, stage.turns
        loop.run_stage(One(), generator, start=step)
        yield step + 1, None

def settings_of(recipe):
    return recipe.dm, recipe.dm.sigma_init
"""
MEASURE = """
import json, sys, time
import torch
from msd.conditions.partition import Partition
from msd.teachers.folder import load_teacher
updates, warm = int(sys.argv[1]), 5
torch.set_num_threads(1)
dm, sigma_init = settings_of(load_recipe("digits"))
teacher = load_teacher("packaged:digits")
partition = Partition(parts=((0, 1, 2), (3, 4, 5), (6, 7), (8, 9)), prior=(0.1,) * 10)
generator = torch.Generator().manual_seed(0)
noise, samples = (torch.randn(12000, 1, 8, 8, generator=generator) for _ in range(2))
keys = torch.arange(12000) % 10
result = {}
for name, share in (("full", 0.0), ("head start", 1.0)):
    regression = dm.regression.model_copy(update={"head_start": share})
    settings = dm.model_copy(update={"num_updates": warm + updates, "regression": regression})
    for step, _ in stage_steps(settings, sigma_init, teacher, partition, noise, keys, samples):
        if step == warm:
            begin = time.process_time()
    result[name] = (time.process_time() - begin) / updates * 1000
print(json.dumps(result))
"""


def measure(checkout: Path, updates: int) -> dict[str, float]:
    code = (NEW if (checkout / "src/msd/stages/materials.py").exists() else OLD) + MEASURE
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(updates)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{checkout}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in options.checkouts}
    for _ in range(options.rounds):
        for checkout in options.checkouts:
            found[checkout].append(measure(checkout, options.updates))
    first = options.checkouts[0]
    for kind in found[first][0]:
        medians = {checkout: statistics.median(round[kind] for round in found[checkout]) for checkout in options.checkouts}
        for checkout, value in medians.items():
            ratios = [mine[kind] / base[kind] for mine, base in zip(found[checkout], found[first], strict=True)]
            print(f"{kind:10} {checkout}: {value:6.2f} ms an update, {statistics.median(ratios):.3f} of {first}")


if __name__ == "__main__":
    main()
