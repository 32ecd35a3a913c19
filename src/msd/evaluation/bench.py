"""One table row: draw the evaluation set, measure it globally and per part, time it, and say how it was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from msd import checks
from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.diffusion.draw import Draw, derived_seed, image_noise
from msd.errors import DataError
from msd.evaluation.features import Features, extract, load_features
from msd.evaluation.metrics import (
    bootstrap_floor,
    frechet_distance,
    kernel_distance,
    label_accuracy,
    memorisation,
    precision_recall,
)
from msd.evaluation.samplers import Sampler
from msd.recipe import EvaluationSection


@dataclass(frozen=True)
class Bench:
    """What all rows of a table share: reference images, feature network, partition, evaluation noise and labels."""

    images: ImageSet
    partition: Partition
    """The main row's: by it every row is measured part by part."""
    settings: EvaluationSection
    noise_shape: tuple[int, ...] | None = None
    """Of one sample's noise; the images' shape unless the denoisers work in another space than pixels."""

    @cached_property
    def _network(self):
        return load_features(self.images.name)

    @cached_property
    def real(self) -> Features:
        return extract(self._network[0], self.images.pixels)

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Noise `[N, *noise_shape]`, each image's of a seed of its own, and labels `[N]` from the global prior: the same for
        every row."""
        seed, num = self.settings.seed, self.settings.num_samples
        each = 4 * (math.prod(self.noise_shape or ()) + 2 * math.prod(self.images.pixel_shape))
        checks.fits_memory(num, each, "images of a row", "lower evaluation.num_samples", error=DataError)
        labels = Draw(seed, "evaluation").choice(self.partition.weights(None), num)
        return image_noise([derived_seed(seed, "image", index) for index in range(num)], self.sample_shape), labels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample's noise."""
        return self.noise_shape or self.images.pixel_shape

    FLOOR = ("reference_sha256", "feature_network_sha256", "num_samples")
    """What of `content` decides the floor."""

    @property
    def content(self) -> dict[str, Any]:
        """All that decides a row's distances but the row: how many images at a time is not part of it."""
        settings = self.settings
        return {
            **self.provenance,
            "noise_shape": self.sample_shape,
            "num_samples": settings.num_samples,
            "nearest_neighbours": settings.nearest_neighbours,
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """Stored beside every number: against what, with what, and on what draw it was measured."""
        return {
            "metric": f"FD-{self._network[1]['data']}",
            "reference": self.images.name,
            "reference_sha256": self.images.hash,
            "num_reference": len(self.images.labels),
            "feature_network_sha256": self._network[1]["sha256"],
            "evaluation_seed": self.settings.seed,
            "partition_hash": self.partition.hash,
        }

    def floor(self) -> dict[str, float]:
        """Frechet distance of redraws of the real images to themselves, at their own number and at the evaluation's."""
        sizes = (len(self.images.labels), self.settings.num_samples)
        return {str(size): round(bootstrap_floor(self.real.values, size), 3) for size in sizes}

    def score(self, pixels: Tensor) -> dict[str, Any]:
        """All distances of the evaluation set's images `[N, C, H, W]`, which must answer `inputs`.

        Raises DataError for images of another number, or that are not finite.
        """
        _, labels = self.inputs
        if len(pixels) != len(labels):
            raise DataError(f"{len(pixels)} images answer {len(labels)} labels; give one a label.")
        if bad := checks.num_not_finite(pixels):
            raise DataError(f"{bad} of {len(pixels)} images are not finite; check the weights of the model that made them.")
        generated = extract(self._network[0], pixels)
        precision, recall = precision_recall(
            self.real.values[self._shuffled], generated.values, self.settings.nearest_neighbours
        )
        real_parts, parts = self.partition.assign(self.images.labels), self.partition.assign(labels)
        # Too few samples of a part make its covariance meaningless: leave the cell empty rather than print a number.
        per_part = [
            round(frechet_distance(self.real.values[real_parts == part], generated.values[parts == part]), 3)
            if (parts == part).sum() > 1 and (real_parts == part).sum() > 1
            else None
            for part in range(self.partition.num_parts)
        ]
        return {
            "frechet_distance": round(frechet_distance(self.real.values, generated.values), 4),
            "kid": round(kernel_distance(self.real.values, generated.values), 6),
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "label_accuracy": round(label_accuracy(generated.predicted, labels), 4),
            "per_part": per_part,
            "memorisation": memorisation(self.images.pixels, pixels),
            "num_samples": len(labels),
        }

    @cached_property
    def _shuffled(self) -> Tensor:
        return torch.randperm(len(self.images.labels), generator=torch.Generator().manual_seed(0))

    def row(self, sampler: Sampler, on_progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Quality of a sampler with its cost per request and provenance, for metrics.json (see `results`).

        Timing is measured apart, on a quiet machine; the caller adds what it knows of the row: kind, note, training.
        """
        noise, labels = self.inputs
        pixels = sampler.in_batches(noise, labels, self.settings.batch_size, on_progress)
        return {
            "num_function_evaluations": sampler.num_function_evaluations,
            "num_parameters_per_request": sampler.num_parameters,
            **self.score(pixels),
            "provenance": self.provenance,
        }
