"""How much memory one denoiser needs, asked of a fresh process by `python -m msd.evaluation.memory_probe`.

Its arguments are FOLDER SOLVER BATCH; SOLVER is a word like heun18, or one-step for a student. Prints `{"mib": x}`. Linux
only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from msd.diffusion.draw import noise_by_step
from msd.diffusion.solvers import Solver, one_step
from msd.networks.folder import load_denoiser
from msd.recipe import read_solver_word

ONE_STEP = "one-step"


def growth(folder: Path, solver: str, batch: int) -> float:
    """MiB by which this process grows while it loads the denoiser and samples one batch."""
    import resource  # Unix only

    load_denoiser(folder)  # imports and lazy set-up, not to be counted
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    before = pages * os.sysconf("SC_PAGE_SIZE")
    denoiser = load_denoiser(folder)
    spec = denoiser.spec
    noise, labels = torch.randn(batch, *spec.noise_shape), torch.zeros(batch, dtype=torch.long)
    with torch.inference_mode():
        if solver == ONE_STEP:
            one_step(denoiser, noise, labels, spec.sigma_init or spec.sigma_max)
        else:
            sampled = Solver(*read_solver_word(solver), spec.sigma_min, spec.sigma_max)
            fresh = noise_by_step(range(batch), spec.noise_shape) if sampled.is_stochastic else None
            sampled(denoiser, noise, labels, step_noise=fresh)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return round((peak - before) / 2**20, 1)


if __name__ == "__main__":
    _, folder, solver, batch = sys.argv
    sys.stdout.write(json.dumps({"mib": growth(Path(folder), solver, int(batch))}))
