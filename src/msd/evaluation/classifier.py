"""The classifier whose last activations a Frechet distance is measured in: sized by the images, trained on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msd.data.images import ImageSet
from msd.errors import warn

Progress = AbstractContextManager[Callable[[int], None]]

SMALLEST = (32, 48)
"""Channels of the two levels of images of 8x8 pixels."""
WIDTHS = (16, 32, 64, 96)
"""Channels of the last levels of larger ones, the coarsest last; what comes before them is as wide as the first."""
EXTRACTED_AT_A_TIME = 1000
MOST_EPOCHS, FEWEST_EPOCHS = 60, 10
"""The rate falls from epoch to epoch; one is a pass over the set, or on a large set a part of it, drawn anew."""
NUM_UPDATES = 2500
"""About as many are made on a set that MOST_EPOCHS passes would take longer over."""
FEWEST_UPDATES = 300
"""At least as many are made on a set so small that MOST_EPOCHS passes would be fewer."""


def num_levels(height: int, width: int) -> int:
    """Halvings after which the longer side is about 4 pixels; at least one."""
    return max(1, math.ceil(math.log2(max(height, width) / 4))) if max(height, width) > 4 else 1


class FeatureNetwork(nn.Module):
    """Classifier of images `[C, H, W]`, of 8x8 pixels and up; `features` are the activations before the class scores.

    There are 64 of them for 8x8 pixels and 128 above, so that those of 10,000 images fill a small file.
    """

    def __init__(self, num_conditions: int, pixel_shape: tuple[int, int, int] = (1, 8, 8)):
        super().__init__()
        channels, height, width = pixel_shape
        levels = num_levels(height, width)
        widths = SMALLEST if levels == 1 else (WIDTHS[:1] * (levels + 1 - len(WIDTHS)) + WIDTHS)[-levels - 1 :]
        self.pixel_shape = pixel_shape
        self.num_features = 64 if levels == 1 else 128
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1, stride=2), nn.ReLU()]
            height, width = (height + 1) // 2, (width + 1) // 2
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)]
        layers += [nn.Linear(widths[-1] * height * width, self.num_features), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(self.num_features, num_conditions)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, D]` and class scores `[N, num_conditions]` of `pixels` `[N, C, H, W]` in [-1, 1]."""
        features = self.body(pixels)
        return features, self.head(features)


@dataclass(frozen=True)
class Budget:
    """How long a network is trained: epochs, and the updates of each, which on a large set are fewer than a pass takes."""

    num_epochs: int
    updates_an_epoch: int

    @property
    def num_updates(self) -> int:
        return self.num_epochs * self.updates_an_epoch


def budget(num_images: int, batch_size: int) -> Budget:
    """MOST_EPOCHS passes where the set is small; on a large one so many epochs as make about NUM_UPDATES."""
    updates = min(-(-num_images // batch_size), NUM_UPDATES // FEWEST_EPOCHS)
    fitting = min(MOST_EPOCHS, round(NUM_UPDATES / updates))
    return Budget(max(fitting, -(-FEWEST_UPDATES // updates)), updates)


def held_out_split(labels: Tensor, num_conditions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of a random fifth of the images and of the others, among which every class keeps one image at least."""
    order = torch.randperm(len(labels), generator=generator)
    held_out, kept = order[: len(order) // 5], order[len(order) // 5 :]
    lost = torch.bincount(labels[kept], minlength=num_conditions) == 0
    if not (candidates := lost[labels[held_out]]).any():
        return held_out, kept
    seen: set[int] = set()
    back = torch.zeros(len(held_out), dtype=torch.bool)
    for place in candidates.nonzero()[:, 0].tolist():
        if (label := int(labels[held_out[place]])) not in seen:
            seen.add(label)
            back[place] = True
    return held_out[~back], torch.cat([kept, held_out[back]])


def train_classifier(
    images: ImageSet,
    seed: int,
    learning_rate: float = 2e-3,
    batch_size: int = 128,
    progress: Callable[[int], Progress] = lambda total: nullcontext(lambda done: None),
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Train on four fifths of `images`, return the network and its recipe with the accuracy on the held-out fifth.

    `progress` is asked for a bar of as many updates as there will be. The same seed and threads give the same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    held_out, kept = held_out_split(images.labels, images.num_conditions, generator)
    if int((torch.bincount(images.labels) > 0).sum()) == 1:
        warn(
            f"all images of {images.name} are of one class, so their classifier has nothing to learn; "
            "evaluation.features=lite0 sees more."
        )
    plan = budget(len(kept), batch_size)
    with torch.random.fork_rng(), progress(plan.num_updates) as advance:
        torch.manual_seed(seed)
        network = FeatureNetwork(images.num_conditions, images.pixel_shape)  # pyright: ignore[reportArgumentType]
        optimiser = torch.optim.Adam(network.parameters(), learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.num_epochs)
        for _ in range(plan.num_epochs):
            shuffled = kept[torch.randperm(len(kept), generator=generator)]
            for batch in shuffled.split(batch_size)[: plan.updates_an_epoch]:
                scores = network(images.batch(batch))[1]
                loss = nn.functional.cross_entropy(scores, images.labels[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                advance(1)
            schedule.step()
    network.eval().requires_grad_(False)
    return network, {
        "data": images.name,
        "data_sha256": images.hash,
        "pixel_shape": list(images.pixel_shape),
        "licence": images.licence,
        "seed": seed,
        "num_epochs": plan.num_epochs,
        "num_updates": plan.num_updates,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        **_accuracy(network, images, held_out),
    }


@torch.no_grad()
def _accuracy(network: FeatureNetwork, images: ImageSet, held_out: Tensor) -> dict[str, Any]:
    """Share of the held-out images whose class is found, of all and of each class; None where none is held out."""
    predicted = [network(images.batch(batch))[1].argmax(1) for batch in held_out.split(EXTRACTED_AT_A_TIME)]
    labels = images.labels[held_out]
    right = (torch.cat(predicted) == labels).double()
    counts = torch.bincount(labels, minlength=images.num_conditions)
    hits = torch.bincount(labels, right, minlength=images.num_conditions)
    return {
        "held_out": len(held_out),
        "held_out_accuracy": round(float(right.mean()), 4) if len(held_out) else None,
        "held_out_accuracy_by_class": [
            round(float(hit / count), 4) if count else None for hit, count in zip(hits, counts, strict=True)
        ],
    }
