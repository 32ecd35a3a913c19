"""How much memory one denoiser needs, asked of a fresh process by `python -m msd.evaluation.memory_probe`.

Its arguments are FOLDER METHOD STEPS BATCH; METHOD is heun, euler, or one-step for a student, whatever STEPS
then says. Prints `{"mib": x}`. Linux only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from msd.diffusion.solvers import Solver, one_step
from msd.networks.folder import load_denoiser


def growth(folder: Path, method: str, num_steps: int, batch: int) -> float:
    """MiB by which this process grows while it loads the denoiser and samples one batch."""
    import resource  # Unix only

    load_denoiser(folder)  # imports and lazy set-up, not to be counted
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    before = pages * os.sysconf("SC_PAGE_SIZE")
    denoiser = load_denoiser(folder)
    spec = denoiser.spec
    noise, labels = torch.randn(batch, *spec.noise_shape), torch.zeros(batch, dtype=torch.long)
    with torch.inference_mode():
        if method == "heun" or method == "euler":
            Solver(method, num_steps, spec.sigma_min, spec.sigma_max)(denoiser, noise, labels)
        else:
            one_step(denoiser, noise, labels, spec.sigma_init or spec.sigma_max)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return round((peak - before) / 2**20, 1)


if __name__ == "__main__":
    _, folder, method, num_steps, batch = sys.argv
    sys.stdout.write(json.dumps({"mib": growth(Path(folder), method, int(num_steps), int(batch))}))
