"""Read a checkpoint in EDM's layout at its real size (ADM U-Net, 64x64, 1000 classes, random weights), beside `torch.load`.

    python benchmarks/edm_file.py --folder /tmp/edm        # 3 GB of disk and 4 GiB of memory; about a minute on 2 CPU cores

Says how long each takes in a fresh process and how much memory at most, and how far the network that was read is from that
which was pickled, over EDM's noise levels. Exit code 1 when it is not the same to 1e-5.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the layout is written there, for the tests

SIZE, CHANNELS, LABELS = 64, 3, 1000
LEVELS = (0.002, 0.05, 0.5, 5.0, 80.0)
TASKS = {
    "torch.load, a state dict": "import torch; torch.load(path.with_suffix('.pt'), weights_only=True)",
    "read_edm, a denoiser": "from msd.teachers.edm import read_edm; read_edm(path).denoiser(path)",
    "convert, a folder": "from msd.teachers.converted import convert; convert(path, path.with_name('teacher'))",
    "load_denoiser, that folder": "from msd.networks.folder import load_denoiser; load_denoiser(path.with_name('teacher'))",
}
PROGRAM = """
import json, re, sys, time
from pathlib import Path
import torch
path = Path(sys.argv[1])
import msd.teachers.converted, diffusers.models.unets.unet_2d
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
begin = time.perf_counter()
{task}
seconds = time.perf_counter() - begin
print(json.dumps({{"seconds": seconds, "mib": (peak() - before) / 1024}}))
"""


def measure(path: Path, repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds (the fastest of some, since the first reads the disk) and MiB above the libraries, of each task."""
    found: dict[str, tuple[float, float]] = {}
    for _ in range(repeats):
        for name, task in TASKS.items():
            program = [sys.executable, "-c", PROGRAM.format(task=task), str(path)]
            value = json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
            before = found.get(name, (float("inf"), 0.0))
            found[name] = min(before[0], value["seconds"]), max(before[1], value["mib"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / "edm.pkl"

    from edm_files import edm_network, save_edm

    arguments = {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)}
    network = edm_network(size=SIZE, channels=CHANNELS, labels=LABELS, **arguments)
    save_edm(path, network)
    torch.save(network.state_dict(), path.with_suffix(".pt"))
    num = sum(value.numel() for value in network.parameters())
    print(f"{num:,} parameters, {path.stat().st_size / 2**20:,.0f} MiB")
    for name, (seconds, mib) in measure(path, options.repeats).items():
        print(f"{name:<28} {seconds:6.2f} s {mib:8,.0f} MiB")

    from msd.teachers.edm import read_edm

    denoiser, generator, worst = read_edm(path).denoiser(path), torch.Generator().manual_seed(0), 0.0
    begin = time.perf_counter()
    for level in LEVELS:
        x = torch.randn(2, CHANNELS, SIZE, SIZE, generator=generator) * (0.25 + level**2) ** 0.5
        sigma, keys = torch.full((2,), level), torch.randint(LABELS, (2,), generator=generator)
        with torch.no_grad():
            theirs, ours = network(x, sigma, keys), denoiser(x, sigma, keys)
        worst = max(worst, float((theirs - ours).abs().max()))
    print(f"largest difference {worst:.1e} over noise levels {LEVELS} ({time.perf_counter() - begin:.0f} s)")
    raise SystemExit(worst > 1e-5)


if __name__ == "__main__":
    main()
