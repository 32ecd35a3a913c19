"""What `msd plan` says a training holds in memory, against what a step of it takes on the CPU, each in a fresh process.

    python benchmarks/plan_memory.py                # 5 GiB of memory; some ten minutes on 2 idle CPU cores
    python benchmarks/plan_memory.py --only 295.9M  # EDM's ADM U-Net as it is: 12 GiB, some ten minutes more

Measured is by how much the process's memory grew at most (VmHWM) above what it is with every library loaded, over a step of
the very stage, whose optimisers have their moments already. Twice: with an allocator that gives every freed block of 64 KiB
and more back at once (MALLOC_MMAP_THRESHOLD_), and as it comes, when the C library does so only above some 32 MiB. Exit code
1 where the plan is more than 15 % off the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the ADM U-Net's configuration is written there

from builders import adm_unet
from msd.diffusion.denoiser import DenoiserSpec
from msd.fleet.rehearsal import Networks, rehearse, student_materials
from msd.recipe import load_recipe, section_of
from msd.stages.table import STAGES
from msd.training.engine import Engine

AIM = 0.15
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
STAGE_NAMES = ("tsm", "dm", "adm")


def narrow(width: int, num_blocks: int) -> dict[str, Any]:
    """The ADM U-Net of 64x64 with narrower levels."""
    return adm_unet([width, 2 * width, 3 * width, 4 * width], num_blocks)


def digits() -> tuple[DenoiserSpec, dict[str, Any]]:
    from msd.commands.shrink import teacher_of

    config, spec = teacher_of(load_recipe("digits"))
    return spec, {key: value for key, value in config.items() if not key.startswith("_")}


ADM = DenoiserSpec(noise_shape=(3, 64, 64), num_conditions=10)
CASES: dict[str, tuple[Any, int]] = {
    "digits, 0.17M, batch 512": (digits, 512),
    "ADM U-Net, 64 channels, 1 block, batch 2": (lambda: (ADM, narrow(64, 1)), 2),
    "ADM U-Net, 128 channels, 1 block, batch 2": (lambda: (ADM, narrow(128, 1)), 2),
    "ADM U-Net of EDM, 295.9M, batch 1": (lambda: (ADM, narrow(192, 3)), 1),
}
LARGE = "295.9M"
"""In the name of what is measured only when it is asked for."""
"""Spec, configuration and batch."""


def settings_of(stage: str, batch: int) -> Any:
    """Each stage, without those that only look."""
    changes: dict[str, Any] = {"num_updates": 2, "batch_size": batch}
    if stage == "tsm":
        changes["held_out"] = 0.0
    else:
        changes |= {"regression": {"batch_size": batch}}
    if stage == "adm":
        changes |= {"discriminator_warmup": 0, "critic_turns": 1}
    return section_of(stage).model_validate(changes)


def num_pairs(batch: int, spec: DenoiserSpec) -> int:
    """For two batches, and for every class."""
    return max(2 * batch, spec.num_conditions)


def peak() -> int:
    """Bytes of this process at most, so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(case: str, stage: str) -> int:
    """Bytes by which this process grows, at most, from before the networks are made until a step is taken."""
    from dataclasses import replace

    from msd.data.pairs import PairSet
    from msd.diffusion.denoiser import Denoiser
    from msd.diffusion.draw import Draw
    from msd.networks.build import build_unet
    from msd.training.loop import take_turn

    make, batch = CASES[case]
    spec, config = make()
    networks = Networks("unet2d", spec, config, config)
    settings, engine = settings_of(stage, batch), Engine.on("cpu", 1)
    # What is lazy is loaded: the same of a small network.
    tiny = Denoiser(build_unet({**config, "block_out_channels": [64] * len(config["block_out_channels"])}), spec)
    answer = tiny(torch.randn(1, *spec.noise_shape), torch.ones(1), torch.zeros(1, dtype=torch.long))
    answer.mean().backward()
    torch.optim.Adam(tiny.parameters(), fused=True).step()
    del tiny, answer
    before = resident()
    materials = student_materials(networks, num_pairs(batch, spec))(engine)

    def network() -> Denoiser:
        return Denoiser(build_unet(config), spec).eval()

    start = network()
    start.spec = replace(spec, sigma_init=80.0)
    noise, samples = torch.randn(2, num_pairs(batch, spec), *spec.noise_shape).unbind()
    pairs = PairSet(noise, torch.arange(len(noise)) % spec.num_conditions, samples)
    materials = replace(materials, teacher=network(), start=start, pairs=pairs)
    made = STAGES[stage](settings, materials)
    for role in made.roles.values():
        for parameter in role.parameters:
            parameter.grad = torch.zeros_like(parameter)
        role.step(torch.zeros(()))
    for turn in made.turns(Draw(0, stage, 1)):
        take_turn([turn], made.roles, engine)
    return peak() - before


def resident() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])


def planned(case: str, stage: str) -> int:
    make, batch = CASES[case]
    spec, config = make()
    networks = Networks("unet2d", spec, config, config)
    return rehearse(stage, settings_of(stage, batch), student_materials(networks, num_pairs(batch, spec))).need().peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "STAGE"), help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    worst = 0.0
    for case in CASES:
        wanted = options.only in case and (options.only or LARGE not in case)
        for stage in STAGE_NAMES if wanted else ():
            program = [sys.executable, __file__, "--measure", case, stage]
            exact, usual = (
                json.loads(subprocess.run(program, check=True, capture_output=True, text=True, env=os.environ | more).stdout)
                for more in (AT_ONCE, {})
            )
            said = planned(case, stage)
            worst = max(worst, abs(said / exact - 1))
            cells = [f"{one / 2**20:,.0f}" for one in (said, exact, usual)] + [
                f"{said / one - 1:+.1%}" for one in (exact, usual)
            ]
            print(f"| {case} | {stage} | {' | '.join(cells)} |", flush=True)
    raise SystemExit(worst > AIM)


if __name__ == "__main__":
    main()
