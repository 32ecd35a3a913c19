"""SIGKILL to a command takes its workers along and loses nothing: the same command, at once, ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msd.owner import OWNER

MSD = [sys.executable, "-c", "from msd.cli import main; main()"]
ARGUMENTS = [
    "distill", "smoke", "--set", "dm.num_updates=60", "--set", "rows={}", "--set", "pairs.num_pairs=2000",
    "--set", "stages=[tsm,dm]", "--set", "tsm.num_updates=20", "--set", "tsm.batch_size=16",
    "--set", "student.start=random", "--set", "student.reduce=0.71",
]  # fmt: skip
MOMENTS = {
    "while pairs are made": "jobs/pairs-*/result/shard-0001*",
    "in the second stage": "jobs/student-0-*/stages/1-dm/checkpoints/step-*.pt",
}
"""What is there when the kill comes; of each stage and the seams between them, `test_seams.py`."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([*MSD, *ARGUMENTS, "--out", str(folder)], check=True, capture_output=True)
    return content(folder)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_loses_nothing(undisturbed: dict[str, bytes], tmp_path: Path, moment: str) -> None:
    command = [*MSD, *ARGUMENTS, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(tmp_path.glob(MOMENTS[moment])):
        time.sleep(0.005)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path) == undisturbed
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".", "checkpoints", OWNER))]
