"""The pages about other makers' checkpoints: their commands, as written, on small networks in the same formats."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from diffusers_folders import ddpm_folder, dit_folder
from edm_files import edm_network, save_edm
from msd.networks.facts import read_facts
from msd.recipe import packaged_recipes

DOCS = Path(__file__).parents[2] / "docs"
CLASSES = ("cat", "dog", "fox", "owl")
SHORT: dict[str, Any] = {
    "pairs": {"num_pairs": 64, "shard_size": 32, "solver": {"num_steps": 3}},
    "tsm": {"num_updates": 3, "batch_size": 8, "look_every": 2},
    "dm": {"num_updates": 3, "batch_size": 8, "warmup_updates": 0, "regression": {"batch_size": 8, "own_share": 0.5}},
    "adm": {
        "num_updates": 2,
        "batch_size": 8,
        "discriminator_warmup": 1,
        "critic_turns": 1,
        "regression": {"batch_size": 8},
    },
    "evaluation": {"num_samples": 40, "teacher": ["heun2"], "latency_batches": [1], "latency_repeats": 1},
}


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def merged(value: Any, changes: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(changes, dict):
        return changes
    return value | {key: merged(value.get(key), one) for key, one in changes.items()}


def shortened(recipe: str, **changes: Any) -> str:
    return yaml.safe_dump(merged(merged(yaml.safe_load(recipe), SHORT), changes) | {"rows": {}})


def draw(folder: Path, size: int) -> None:
    source = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(source.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / name / f"{number}.png")


def run(line: str, place: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MSD_CACHE": str(place / "cache"),
    }
    done = subprocess.run(["bash", "-euc", line], cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def unet(place: Path) -> dict[str, Any]:
    ddpm_folder(place / "my-model", sample_size=16)
    return {"student": {"reduce": 0.4}}


def dit(place: Path) -> dict[str, Any]:
    """Latents, a learned variance, guidance; students of the teacher's size, the only one of its kind."""
    dit_folder(place / "my-model", id2label=dict(enumerate(CLASSES)))
    return {"teacher": {"source": "my-model", "guidance": 1.5}, "student": {"reduce": 0.0}}


@pytest.mark.parametrize("model", [unet, dit])
def test_a_diffusers_folder_is_distilled_by_the_commands_of_its_page(
    tmp_path: Path, model: Callable[[Path], dict[str, Any]]
) -> None:
    changes = model(tmp_path)
    draw(tmp_path / "pictures", 16)
    (recipe,) = blocks("diffusers-model.md", "yaml")
    (tmp_path / "my-model.yaml").write_text(shortened(recipe, **changes), encoding="utf-8")
    lines = [line for block in blocks("diffusers-model.md", "sh") for line in block.splitlines()]
    assert [" ".join(line.split()[1:3]) for line in lines[:2]] == ["teacher inspect", "teacher sample"]
    assert [line.split()[1] for line in lines[2:]] == ["plan", "demo", "sample"]
    said = [run(line, tmp_path) for line in lines]
    assert "diffusers folder" in said[0]
    for name, side in (("teacher.png", 16), ("samples.png", 16)):
        with Image.open(tmp_path / name) as picture:
            assert picture.width >= 8 * side
    student = read_facts(next((tmp_path / "runs" / "my-model" / "cohort" / "students").iterdir()))
    assert student["teacher"]["origin"]["format"] == "diffusers folder"
    assert student["spec"]["guidance"] == changes.get("teacher", {}).get("guidance", 1.0)
    page = (tmp_path / "runs" / "my-model" / "report" / "index.html").read_text(encoding="utf-8")
    assert "FD-pictures" in page


def test_an_edm_checkpoint_is_distilled_by_the_commands_of_its_page(tmp_path: Path) -> None:
    """On a small network in the same format, and the paper's recipe with its lengths cut."""
    save_edm(tmp_path / "edm-imagenet-64x64-cond-adm.pkl", edm_network(size=8, channels=3, labels=4))
    draw(tmp_path / "pictures", 8)
    changes = {
        "device": "cpu",
        "precision": "float32",
        "data": {"source": "pictures", "name": "pictures", "size": 8},
        "partition": {"num_parts": 2},
        "evaluation": {"features": "classifier", "num_samples": 40},
    }
    recipe = shortened(packaged_recipes()["imagenet64"].read_text(encoding="utf-8"), **changes)
    content = yaml.safe_load(recipe)
    del content["teacher"]["blueprint"]  # of the full-size network
    (tmp_path / "imagenet64.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    lines = [line for block in blocks("edm-checkpoint.md", "sh") for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["teacher", "plan", "demo", "sample"]
    said = [run(re.sub(r"(?<= )imagenet64(?= |$)", "imagenet64.yaml", line), tmp_path) for line in lines]
    assert "CC BY-NC-SA 4.0" in said[0]
    student = read_facts(next((tmp_path / "runs" / "imagenet64" / "cohort" / "students").iterdir()))
    assert student["teacher"]["licence"] == "CC BY-NC-SA 4.0"
    assert student["teacher"]["origin"]["file"] == "edm-imagenet-64x64-cond-adm.pkl"
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width >= 8 * 8
