"""No room: whatever writes says which file, how many bytes, and what to do; what was there stays, and work goes on later."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from command import MSD

WRITES = {
    "text": "write_text(path, 'x' * 500_000)",
    "torch": "with replacing(path, 500_000) as temporary, temporary.open('wb') as stream: torch.save(tensor, stream)",
    "safetensors": "with replacing(path, 500_000) as temporary: save_file({'a': tensor}, temporary)",
    "folder": "with replacing_folder(path) as folder: save_file({'a': tensor}, folder / 'weights.safetensors')",
}
SCRIPT = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from msd.errors import RunError
from msd.files import replacing, replacing_folder, write_text
path, tensor = Path(sys.argv[1]), torch.zeros(125_000)
try:
    {write}
except RunError as error:
    print(error)
"""


def limited(num_bytes: int):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_a_file_that_may_not_grow_is_named_with_its_size(tmp_path: Path, write: str) -> None:
    path = tmp_path / "kept"
    path.mkdir() if "folder" in write else path.write_text("as it was")
    script = [sys.executable, "-c", SCRIPT.format(write=write.replace("\n", "\n    ")), str(path)]
    done = subprocess.run(script, capture_output=True, text=True, check=True, preexec_fn=limited(100_000))
    assert f"{path} needs at least" in done.stdout
    assert "ulimit -f" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    assert path.is_dir() or path.read_text() == "as it was"


ARGUMENTS = ["distill", "smoke", "--set", "dm.num_updates=20", "--set", "rows={}", "--set", "pairs.num_pairs=400"]


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_a_distillation_without_room_says_so_and_goes_on_when_there_is(tmp_path: Path) -> None:
    """The students do not fit, then they do: bit for bit what an undisturbed run makes."""
    command = [*MSD, *ARGUMENTS, "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    limit = limited(max(map(len, weights(tmp_path / "whole" / "cohort").values())) - 1000)
    arguments = [*command, str(tmp_path / "run")]
    failed = subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert failed.returncode == 1
    assert "bytes, more than a file may have here; raise the limit (ulimit -f)" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    subprocess.run(arguments, check=True, capture_output=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize("num_bytes", [2500, 600, 100])
def test_where_not_even_the_books_can_be_kept_the_reason_is_told(tmp_path: Path, num_bytes: int) -> None:
    """The pairs do not fit; then neither log nor status do; then not even the name of the run's owner."""
    command = [*MSD, *ARGUMENTS, "--out", str(tmp_path / "run")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited(num_bytes))
    assert failed.returncode in (1, 2)
    message = failed.stderr.strip().splitlines()[-1]
    assert "Error: " in message or "Failed: " in message
    assert "ulimit -f" in message
    assert "Traceback" not in failed.stderr
    assert not list(tmp_path.rglob("*.tmp"))
