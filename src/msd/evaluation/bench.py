"""One table row: draw the evaluation set, measure it globally and per part, time it, and say how it was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from msd import checks
from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.diffusion.draw import Draw, derived_seed, image_noise
from msd.errors import DataError
from msd.evaluation.features import CPU, Extractor, load_network
from msd.evaluation.metrics import (
    bootstrap_floor,
    distances_between,
    frechet_distance,
    kernel_distance,
    label_accuracy,
    memorisation,
    precision_recall,
)
from msd.evaluation.moments import Moments, frechet
from msd.evaluation.protocol import INCEPTION_METRIC, called, shortfalls
from msd.evaluation.reference import MOST_REAL, Reference, kept_reference, load_reference
from msd.evaluation.samplers import Sampler
from msd.evaluation.statistics import SourceNotes, Statistics
from msd.recipe import BALANCED, DATA, EvaluationSection

MOST_SEEN_AGAIN = 10_000
"""Real images that a second opinion looks at, whose network is slow."""
SEEN_AGAIN = 5000
"""Generated images of a row that it looks at, the first ones."""
MOMENTS_ALONE = "mean and covariance"
BY_FEATURES = ("kid", "precision", "recall", "per_part")
"""What a row says beside its distance, where the features of real images are at hand."""


@dataclass(frozen=True)
class Bench:
    """What all rows of a table share: reference, feature networks, partition, evaluation noise and labels.

    Raises WeightsError and DataError, when made, for networks and references that are missing or do not fit the images.
    """

    images: ImageSet | None
    """The real images; None where only their features are at hand."""
    partition: Partition
    """The main row's: by it every row is measured part by part."""
    settings: EvaluationSection
    noise_shape: tuple[int, ...] | None = None
    """Of one sample's noise; the images' shape unless the denoisers work in another space than pixels."""
    run_folder: Path | None = None
    """Of the run, where its own feature network lies."""
    image_shape: tuple[int, ...] | None = None
    """Of one image that is made, where nothing is known of the real ones but moments."""
    device: torch.device = CPU
    """Where feature networks look at images."""
    _taken: dict[str, Reference] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images is None and (self.settings.reference == DATA or self.settings.also):
            raise DataError(
                "the real images are not at hand; set evaluation.reference to a file of their features, and "
                "evaluation.also=[]."
            )
        for network in (self.network, *self.others):
            if shape := self._known.pixel_shape if self._known else self.image_shape:
                network.check_fits(shape)
        if self.num_conditions != self.partition.num_conditions:
            raise DataError(
                f"the real images have {self.num_conditions} classes, the partition {self.partition.num_conditions}; "
                "set data, or evaluation.reference, to images of the classes that were trained."
            )

    @cached_property
    def network(self) -> Extractor:
        return load_network(self.settings.features, self.run_folder).on(self.device)

    @cached_property
    def others(self) -> tuple[Extractor, ...]:
        """Networks of second opinions."""
        return tuple(load_network(name, self.run_folder).on(self.device) for name in dict.fromkeys(self.settings.also))

    @cached_property
    def shipped(self) -> Reference | Statistics | None:
        """The file of features, or of their moments, that distances are measured to; None where it is the images."""
        return None if self.settings.reference == DATA else load_reference(self.settings.reference, self.network)

    @property
    def _known(self) -> Reference | SourceNotes | ImageSet | None:
        """What says of which shape and classes the real images are; None where EDM's statistics are all there is."""
        shown = self.shipped
        return (shown.notes if isinstance(shown, Statistics) else shown) or self.images

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        shape = self._known.pixel_shape if self._known else self.image_shape
        assert shape is not None  # whoever makes images knows it
        return shape

    @property
    def num_conditions(self) -> int:
        return self._known.num_conditions if self._known else self.partition.num_conditions

    @property
    def real(self) -> Reference | None:
        """Features of the real images; None where only moments of them are at hand."""
        return None if isinstance(self.shipped, Statistics) else self.shipped or self._seen(self.network, MOST_REAL)

    @cached_property
    def moments(self) -> Moments:
        """Of the real images' features."""
        if isinstance(self.shipped, Statistics):
            return self.shipped.moments
        assert self.real is not None
        return Moments.of(self.real.features)

    def distance(self, values: Tensor) -> float:
        """Frechet distance of generated images' features `[N, D]` to the real ones'."""
        return frechet(self.moments, Moments.of(values))

    def _seen(self, network: Extractor, most: int, on_progress: Callable[[int], None] = lambda done: None) -> Reference:
        """Features of the real images, taken once."""
        if network.sha256 not in self._taken:
            assert self.images is not None
            self._taken[network.sha256] = kept_reference(self.images, network, most, on_progress)
        return self._taken[network.sha256]

    def _missing(self) -> list[tuple[Extractor, int]]:
        wanted = [(network, MOST_SEEN_AGAIN) for network in self.others]
        wanted += [(self.network, MOST_REAL)] if self.shipped is None else []
        return [(network, most) for network, most in wanted if network.sha256 not in self._taken]

    @property
    def num_unseen(self) -> int:
        """Real images that are to be looked at before a row can be measured, over all networks."""
        return sum(self._num_real(most) for _, most in self._missing())

    def look(self, on_progress: Callable[[int], None] = lambda done: None) -> None:
        """Take the features of the real images, as measuring would; `on_progress` is told how many at a time."""
        for network, most in self._missing():
            self._seen(network, most, on_progress)

    @cached_property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Noise `[N, *noise_shape]`, each image's of its seed, and `labels` `[N]`: the same for every row."""
        each = 4 * (math.prod(self.noise_shape or ()) + 2 * math.prod(self.pixel_shape))
        num = self.settings.num_samples
        checks.fits_memory(num, each, "images of a row", "lower evaluation.num_samples", error=DataError)
        return image_noise(self.seeds, self.sample_shape), self.labels

    @cached_property
    def labels(self) -> Tensor:
        """`[N]`, of the global prior; or balanced: each run of `num_conditions` of them has every condition once."""
        draw, num = Draw(self.settings.seed, "evaluation"), self.settings.num_samples
        if self.settings.conditions != BALANCED:
            return draw.choice(self.partition.weights(None), num)
        rounds = -(-num // self.num_conditions)
        return draw.uniform(rounds * self.num_conditions).reshape(rounds, -1).argsort(1).flatten()[:num]

    @property
    def shortfalls(self) -> list[str]:
        """In what distances on Inception's features are not the papers' protocol."""
        counts = torch.bincount(self.labels, minlength=self.num_conditions)
        is_balanced = int(counts.max() - counts.min()) <= 1
        num, images = None, self._known
        if not isinstance(self.shipped, Statistics):
            num = len(self.shipped) if self.shipped else self._num_real(MOST_REAL)
        whole = images.num_images if isinstance(images, Reference) else len(self.images or ())
        return shortfalls(len(self.labels), is_balanced, num, whole)

    @property
    def seeds(self) -> list[int]:
        """Of each image of the evaluation set."""
        return [derived_seed(self.settings.seed, "image", index) for index in range(self.settings.num_samples)]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample's noise."""
        return self.noise_shape or self.pixel_shape

    FLOOR: ClassVar = ("reference_sha256", "feature_network_sha256", "num_samples")
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
        settings, metric = self.settings, self.network.metric
        short = self.shortfalls if metric == INCEPTION_METRIC else []
        found: dict[str, Any] = {
            "metric": called(metric, settings.num_samples, short),
            **self._measured_to,
            "feature_network_sha256": self.network.sha256,
            "evaluation_seed": settings.seed,
            "partition_hash": self.partition.hash,
        }
        if metric == INCEPTION_METRIC:
            found["short_of_protocol"] = short
        if settings.conditions == BALANCED:  # the default says nothing, so that what was measured before it stays known
            found["conditions"] = BALANCED
        if self.others:
            num = {
                "num_reference": self._num_real(MOST_SEEN_AGAIN),
                "num_samples": min(settings.num_samples, SEEN_AGAIN),
            }
            found["also"] = {one.metric: {"feature_network_sha256": one.sha256, **num} for one in self.others}
        return found

    @property
    def _measured_to(self) -> dict[str, Any]:
        if self.shipped is None:
            assert self.images is not None
            num = self._num_real(MOST_REAL)
            return {"reference": self.images.name, "reference_sha256": self.images.hash, "num_reference": num}
        said: dict[str, Any] = {"reference": self.shipped.name, "reference_sha256": self.shipped.sha256}
        if isinstance(self.shipped, Statistics):
            notes = self.shipped.notes
            said |= {"reference_holds": MOMENTS_ALONE, "num_reference": notes.num_images if notes else None}
        else:
            said["num_reference"] = len(self.shipped)
        return said | ({"images_sha256": self.images.hash} if self.images else {})

    def _num_real(self, most: int) -> int:
        return min(len(self.images or ()), most)

    def floor(self) -> dict[str, float]:
        """Frechet distance of redraws of the real images to themselves, at their own number and at the evaluation's; nothing
        where there are none to redraw."""
        if self.real is None:
            return {}
        sizes = (len(self.real), self.settings.num_samples)
        return {str(size): round(bootstrap_floor(self.real.features, size), 3) for size in sizes}

    def score(self, pixels: Tensor, on_progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """All distances of the evaluation set's images `[N, C, H, W]`, which must answer `inputs`.

        `on_progress` is told of those that a second opinion has looked at. Raises DataError for images of another number or
        shape, or that are not finite.
        """
        _, labels = self.inputs
        if len(pixels) != len(labels):
            raise DataError(f"{len(pixels)} images answer {len(labels)} labels; give one a label.")
        if tuple(pixels.shape[1:]) != tuple(self.pixel_shape):
            given, real = ("x".join(map(str, shape)) for shape in (pixels.shape[1:], self.pixel_shape))
            raise DataError(
                f"the images are {given} and the real ones {real}; set data to those that the model was made for."
            )
        if bad := checks.num_not_finite(pixels):
            raise DataError(f"{bad} of {len(pixels)} images are not finite; check the weights of the model that made them.")
        generated = self.network.extract(pixels.split(self.network.at_a_time))
        found = {
            "frechet_distance": round(self.distance(generated.values), 4),
            **self._by_features(self.real, generated.values, labels),
            "label_accuracy": self._accuracy(generated.predicted, labels),
            "memorisation": self._memorised(pixels),
            "num_samples": len(labels),
        }
        return found | ({"others": self._other_distances(pixels, on_progress)} if self.others else {})

    def _by_features(self, real: Reference | None, values: Tensor, labels: Tensor) -> dict[str, Any]:
        """What needs the features of real images, not their moments alone; all None without."""
        if real is None:
            return dict.fromkeys(BY_FEATURES)
        precision, recall = precision_recall(real.features[self._shuffled], values, self.settings.nearest_neighbours)
        found = (round(kernel_distance(real.features, values), 6), round(precision, 4), round(recall, 4))
        return dict(zip(BY_FEATURES, (*found, self._per_part(real, values, labels)), strict=True))

    def _accuracy(self, predicted: Tensor | None, labels: Tensor) -> float | None:
        """None where the network knows other classes than were asked for."""
        if predicted is None or self.network.num_conditions != self.num_conditions:
            return None
        return round(label_accuracy(predicted, labels), 4)

    def _per_part(self, real: Reference, values: Tensor, labels: Tensor) -> list[float | None]:
        real_parts, parts = self.partition.assign(real.labels), self.partition.assign(labels)
        # Too few samples of a part make its covariance meaningless: leave the cell empty rather than print a number.
        return [
            round(frechet_distance(real.features[real_parts == part], values[parts == part]), 3)
            if (parts == part).sum() > 1 and (real_parts == part).sum() > 1
            else None
            for part in range(self.partition.num_parts)
        ]

    def _other_distances(self, pixels: Tensor, on_progress: Callable[[int], None]) -> dict[str, float]:
        """Frechet distances in the second opinions' features, by what they are called."""
        found, pixels = {}, pixels[:SEEN_AGAIN]
        for network in self.others:
            values = network.extract(pixels.split(network.at_a_time), on_progress).values
            found[network.metric] = round(frechet_distance(self._seen(network, MOST_SEEN_AGAIN).features, values), 4)
        return found

    def _memorised(self, pixels: Tensor) -> dict[str, Any] | None:
        if self.images is None:
            return None
        self.images.check()
        return memorisation(self.images.pixels, pixels, self._between_real)

    @cached_property
    def _between_real(self) -> Tensor | None:
        return distances_between(self.images.pixels) if self.images else None

    @cached_property
    def _shuffled(self) -> Tensor:
        return torch.randperm(len(self.real or ()), generator=torch.Generator().manual_seed(0))

    @property
    def work(self) -> int:
        """Images that measuring a row makes, and looks at again."""
        return self.settings.num_samples + len(self.others) * min(self.settings.num_samples, SEEN_AGAIN)

    def row(self, sampler: Sampler, on_progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Quality of a sampler with its cost per request and provenance, for metrics.json (see `results`).

        `on_progress` is told of `work` images in all.

        Timing is measured apart, on a quiet machine; the caller adds what it knows of the row: kind, note, training.
        """
        noise, labels = self.inputs
        pixels = sampler.in_batches(noise, labels, self.seeds, self.settings.batch_size, on_progress)
        return {
            "num_function_evaluations": sampler.num_function_evaluations,
            "num_parameters_per_request": sampler.num_parameters,
            **self.score(pixels, on_progress),
            "provenance": self.provenance,
        }
