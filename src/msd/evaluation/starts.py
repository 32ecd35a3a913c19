"""How good students are before they are distilled: how like their teacher they denoise, and what one step of them makes.

Neither touches a real image but for the reference of the distance: what is noised are the teacher's own samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from msd import checks
from msd.conditions.partition import Partition
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.draw import Draw, noise_by_step
from msd.diffusion.solvers import Solver, one_step
from msd.errors import WeightsError
from msd.evaluation.bench import Bench
from msd.objectives.denoising import denoising_loss
from msd.teachers.folder import Teacher

MOST_SAMPLES = 2000
"""Images of a start that its distance is taken of: a fifth of a row's, since starts differ by factors."""
MOST_NOISED = 256
"""Samples of the teacher that are noised, at each level."""
NUM_LEVELS = 8
"""Noise levels, evenly in their logarithm over all that the teacher is sampled at."""


@dataclass(frozen=True)
class StartBench:
    """What the starts of all rows are measured with: the rows' bench, and the teacher with the solver of its samples."""

    bench: Bench
    teacher: Teacher
    solver: Solver

    @property
    def sigmas(self) -> list[float]:
        spec = self.teacher.denoiser.spec
        low, high = math.log(spec.sigma_min), math.log(spec.sigma_max)
        steps = (math.exp(low + (high - low) * place / (NUM_LEVELS - 1)) for place in range(NUM_LEVELS))
        return [float(f"{level:.4g}") for level in steps]

    @property
    def num_samples(self) -> int:
        return min(MOST_SAMPLES, self.bench.settings.num_samples)

    @property
    def content(self) -> dict[str, Any]:
        """All that decides what is measured of a start, but the start."""
        num_noised = min(MOST_NOISED, self.num_samples)
        decided = {"num_samples": self.num_samples, "num_noised": num_noised, "sigmas": self.sigmas}
        return {**self.bench.content, **decided, "teacher": self.teacher.hash, "solver": asdict(self.solver)}

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor]:
        """Samples of the teacher `[n, ...]` in the model's space, and their labels `[n]`; both on its device."""
        noise, labels = (one[:MOST_NOISED] for one in self.bench.inputs)
        device = next(self.teacher.denoiser.parameters()).device
        fresh = noise_by_step(self.bench.seeds[: len(labels)], noise.shape[1:]) if self.solver.is_stochastic else None
        with torch.inference_mode():
            condition = self.teacher.conditions[labels.to(device)]
            return self.solver(self.teacher.denoiser, noise.to(device), condition, step_noise=fresh), labels.to(device)

    @property
    def work(self) -> int:
        """Samples that measuring a row's start looks at."""
        return self.num_samples + NUM_LEVELS * min(MOST_NOISED, self.num_samples)

    @torch.inference_mode()
    def measure(
        self, starts: Sequence[Denoiser], partition: Partition, on_progress: Callable[[int], None] = lambda done: None
    ) -> dict[str, Any]:
        """Of the starts of a row, one a part of `partition`, routed as their students will be.

        `losses` are mean lambda(sigma) (start - teacher)^2 at each of `sigmas`, lambda as in EDM; `frechet_distance` is of
        `num_samples` images, one evaluation each. Raises WeightsError for starts whose images are not finite.
        """
        losses = [self._loss(level, sigma, starts, partition, on_progress) for level, sigma in enumerate(self.sigmas)]
        distance = self._distance(starts, partition, on_progress)
        return {
            "sigmas": self.sigmas,
            "losses": [float(f"{loss:.4g}") for loss in losses],
            "frechet_distance": round(distance, 4),
            "num_samples": self.num_samples,
        }

    def _loss(
        self,
        level: int,
        sigma: float,
        starts: Sequence[Denoiser],
        partition: Partition,
        on_progress: Callable[[int], None],
    ) -> float:
        clean, labels = self._clean
        draw = Draw(self.bench.settings.seed, "starts", level, device=clean.device)  # the same noise for every row
        noised, total = clean + sigma * draw.normal(*clean.shape), 0.0
        for some, part in _routed(labels, partition, self.bench.settings.batch_size):
            levels = torch.full((len(some),), sigma, device=clean.device)
            given = noised[some], levels, self.teacher.conditions[labels[some]]
            target = self.teacher.denoiser(*given)
            total += float(denoising_loss(starts[part](*given), target, levels, starts[part].spec.sigma_data)) * len(some)
            on_progress(len(some))
        return total / len(labels)

    def _distance(self, starts: Sequence[Denoiser], partition: Partition, on_progress: Callable[[int], None]) -> float:
        bench, num = self.bench, self.num_samples
        noise, labels = (one[:num] for one in bench.inputs)
        pixels = torch.empty(num, *bench.pixel_shape)
        for some, part in _routed(labels, partition, bench.settings.batch_size):
            start = starts[part]
            device, sigma_init = next(start.parameters()).device, start.spec.sigma_init
            assert sigma_init is not None  # a student has one
            condition = self.teacher.conditions[labels[some].to(device)]
            samples = one_step(start, noise[some].to(device), condition, sigma_init)
            if bad := checks.num_not_finite(samples):
                raise WeightsError(f"{bad} samples of a start are not finite; train it again at a lower rate.")
            pixels[some] = start.spec.codec.decode(samples).cpu()
            on_progress(len(some))
        seen = bench.network.extract(pixels.split(bench.network.at_a_time))
        return bench.distance(seen.values)


def _routed(labels: Tensor, partition: Partition, batch_size: int) -> Iterator[tuple[Tensor, int]]:
    """Indices of `labels` `[N]` in batches of one part each, with that part."""
    parts = partition.assign(labels.cpu())
    for part in parts.unique().tolist():
        for some in (parts == part).nonzero().flatten().split(batch_size):
            yield some.to(labels.device), part
