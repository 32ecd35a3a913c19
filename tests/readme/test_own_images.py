"""The commands of docs/own-images.md, executed as written on pictures of two classes; only the plan's lengths are cut."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-images.md"
SHORT = {
    "pretrain": {"num_updates": 20, "batch_size": 16, "warmup_updates": 0},
    "network": {"block_out_channels": [8, 16], "norm_num_groups": 4, "attention": False},
    "pairs": {"num_pairs": 64, "shard_size": 32, "solver": {"num_steps": 2}},
    "dm": {"num_updates": 4, "batch_size": 8, "warmup_updates": 0, "regression": {"batch_size": 8, "own_share": 0.5}},
    "evaluation": {"num_samples": 40, "latency_batches": [1], "latency_repeats": 1},
}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line]


def draw(folder: Path) -> None:
    """Discs for cats, rings for dogs: 24 PNG files of 12x8 pixels each, in colour."""
    source, grid = np.random.default_rng(0), np.stack(np.meshgrid(np.arange(12), np.arange(8)), -1)
    for name, inner in (("cat", 0.0), ("dog", 2.0)):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            distance = np.linalg.norm(grid - source.normal((5.5, 3.5), 0.5), axis=-1)
            shape = ((distance < 3.5) & (distance >= inner))[..., None]
            colours = source.integers(0, 255, (2, 3), dtype=np.uint8)
            Image.fromarray(np.where(shape, *colours).astype(np.uint8)).save(folder / name / f"{number}.png")


def shorten(recipe: Path) -> None:
    """The plan with a few updates of each kind, and students of the cohort alone: minutes become seconds."""
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    for section, changes in SHORT.items():
        for key, value in changes.items():
            content[section][key] = content[section][key] | value if isinstance(value, dict) else value
    recipe.write_text(yaml.safe_dump(content | {"rows": {}}), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own-images")
    draw(folder / "pictures")
    return folder


def test_every_command_runs_as_written(place: Path) -> None:
    found = commands()
    assert [line.split()[1] for line in found] == ["data", "init", "demo", "sample"]
    environment = os.environ | {
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MSD_CACHE": str(place / "cache"),
    }
    for line in found:
        done = subprocess.run(
            ["bash", "-euc", line], cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if line.startswith("msd init"):
            shorten(place / "pictures.yaml")
    page = (place / "runs" / "pictures" / "report" / "index.html").read_text(encoding="utf-8")
    assert "FD-pictures" in page
    assert ">cat<" in page
    with Image.open(place / "samples.png") as picture:
        assert picture.width >= 8 * 32
