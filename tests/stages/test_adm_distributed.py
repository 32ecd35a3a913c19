"""Two processes with half the batch each are one process with all of it, in a turn of two roles from one loss too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import materials, random_pairs
from msd.conditions.partition import Partition
from msd.data.images import load_digits
from msd.recipe import ADMSection, PairedSection
from msd.stages.adm import AdversarialMatching
from msd.teachers.folder import load_teacher
from msd.training.bundle import Bundle
from msd.training.engine import launched_engine
from msd.training.loop import steps

COMMON: dict[str, Any] = {
    "num_updates": 6,
    "batch_size": 64,
    "critic_turns": 2,
    "warmup_updates": 2,
    "discriminator_warmup": 3,
    "regression": PairedSection(batch_size=64),
}
VARIANTS: list[dict[str, Any]] = [
    {"r1_weight": 1.0},
    {"trains_critic": False, "trained_layers": "no-convolutions"},
    {"features": "teacher", "trains_critic": False, "tap": "down.0"},
]


def train(teacher: str, out: Path) -> None:
    """Every variant, on the processes that there are; the first leaves records and bundles in `out`."""
    loaded = load_teacher(teacher)
    with launched_engine("cpu", threads=1) as engine:
        for index, changes in enumerate(VARIANTS):
            halves = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=(0.1,) * 10)
            given = materials(
                loaded, halves, part=1, pairs=random_pairs(100), sigma_init=2.5, images=load_digits(), engine=engine
            )
            stage = AdversarialMatching(ADMSection(**COMMON | changes), given)
            records = [{name: value.item() for name, value in record.items()} for _, record in steps(stage, engine, seed=0)]
            if engine.is_main:
                (out / f"records-{index}.json").write_text(json.dumps(records))
                Bundle({name: role.weights() for name, role in stage.roles.items()}).save(out / f"bundle-{index}")
            del stage


def launch(teacher: str, out: Path, processes: int) -> None:
    out.mkdir()
    command = [sys.executable, __file__, teacher, str(out)]
    if processes > 1:
        port = 31500 + os.getpid() % 2000
        command[1:1] = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_two_processes_give_the_records_and_weights_of_one(teacher, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    launch(teacher.source, one, 1)
    launch(teacher.source, two, 2)
    for index in range(len(VARIANTS)):
        records = [json.loads((folder / f"records-{index}.json").read_text()) for folder in (one, two)]
        assert len(records[0]) == 9
        for mine, theirs in zip(*records, strict=True):
            assert theirs == pytest.approx(mine, rel=5e-3, abs=1e-4)
        bundles = [Bundle.load(folder / f"bundle-{index}").roles for folder in (one, two)]
        assert bundles[0].keys() == {"student", "critic", "discriminator"}
        for role, handed in bundles[0].items():
            for name, value in handed.raw.items():
                torch.testing.assert_close(bundles[1][role].raw[name], value, rtol=1e-2, atol=2e-4)


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]))
