"""The README's commands, executed as written, in a copy of the project; all but `make test`, which is what runs this."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds, with this interpreter's environment standing where `make` would put a fresh one."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Makefile", "pyproject.toml", "README.md", "constraints", "src", "examples"):
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    ready = folder / ".venv" / ".ready-cpu"
    existed = ready.exists()
    ready.touch()
    yield folder
    if not existed:
        ready.unlink()


def execute(script: str, project: Path) -> subprocess.CompletedProcess[str]:
    # The demo's own recipe takes minutes and is run by hand and by `make demo`; here the same command runs the quick one.
    environment = os.environ | {"RECIPE": "smoke", "TOY_UPDATES": "2"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_every_command_runs_as_written(project: Path) -> None:
    scripts = [script for script in blocks("sh") if script.strip() != "make test"]
    assert scripts[0].strip() == "make demo"
    activate = ". .venv/bin/activate\n"
    for script in scripts:
        done = execute(script if script.startswith((activate, "make")) else activate + script, project)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    for left in ("runs/demo/report/index.html", "runs/grid.png", "runs/students/cohort/cohort.json", "runs/toy2d/toy2d.png"):
        assert (project / left).exists(), left


def test_the_python_example_gives_what_its_comment_says(project: Path) -> None:
    (example,) = blocks("python")
    check = "\nassert images.shape == (3, 1, 8, 8) and str(images.dtype) == 'torch.float32' and images.abs().max() <= 1"
    if not (project / "runs" / "demo").exists():
        assert execute("make demo", project).returncode == 0
    done = subprocess.run([sys.executable, "-c", example + check], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
