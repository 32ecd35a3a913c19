"""The feature network behind FD-digits: a small classifier, shipped with its recipe and quality beside it.

Distances measured with it are called FD-digits, never FID: numbers compare only under the same feature network, which is
why its hash is stored beside every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from msd.data.images import ImageSet
from msd.errors import WeightsError
from msd.files import has_sha256, sha256_file, write_json
from msd.networks.tensors import load_tensors
from msd.reading import Kind, Notes, Sha256, read_object

PACKAGED = Path(__file__).parent.parent / "weights"
WEIGHTS = "features.safetensors"
FACTS = "features.json"
_KIND = Kind(
    "a feature network's description",
    "reinstall msd, or remove the folder and make it again with `msd pretrain --network features`",
    WeightsError,
)


class _FeatureNotes(Notes):
    sha256: Sha256
    num_conditions: int = Field(ge=1, le=10**6)
    data: str


class FeatureNetwork(nn.Module):
    """Classifier of small grey images; `features` are the 64 activations before the class scores."""

    num_features = 64

    def __init__(self, num_conditions: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(48 * 16, self.num_features),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.num_features, num_conditions)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[N, 64]` and class scores `[N, num_conditions]` of `pixels` `[N, 1, 8, 8]` in [-1, 1]."""
        features = self.body(pixels)
        return features, self.head(features)


@dataclass(frozen=True)
class Features:
    """What the metrics look at: features `[N, D]` and predicted labels `[N]` of a set of images."""

    values: Tensor
    predicted: Tensor


@torch.no_grad()
def extract(network: FeatureNetwork, pixels: Tensor, batch_size: int = 1000) -> Features:
    values, predicted = [], []
    for batch in pixels.split(batch_size):
        features, scores = network(batch)
        values.append(features)
        predicted.append(scores.argmax(1))
    return Features(torch.cat(values), torch.cat(predicted))


def train_features(
    images: ImageSet,
    seed: int,
    num_epochs: int = 60,
    learning_rate: float = 2e-3,
    batch_size: int = 128,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Train on four fifths of `images`, return the network and its recipe with the accuracy on the held-out fifth."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images.labels), generator=generator)
    held_out, kept = order[: len(order) // 5], order[len(order) // 5 :]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FeatureNetwork(images.num_conditions)
        optimiser = torch.optim.Adam(network.parameters(), learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_epochs)
        for epoch in range(num_epochs):
            for batch in kept[torch.randperm(len(kept), generator=generator)].split(batch_size):
                scores = network(images.batch(batch))[1]
                loss = nn.functional.cross_entropy(scores, images.labels[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            schedule.step()
            on_epoch(epoch + 1)
    network.eval().requires_grad_(False)
    predicted = extract(network, images.batch(held_out)).predicted
    accuracy = float((predicted == images.labels[held_out]).double().mean())
    recipe = {
        "data": images.name,
        "data_sha256": images.hash,
        "seed": seed,
        "num_epochs": num_epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "held_out": len(held_out),
        "held_out_accuracy": round(accuracy, 4),
    }
    return network, recipe


def save_features(network: FeatureNetwork, folder: Path, recipe: dict[str, Any]) -> None:
    """Write weights and facts into `folder`; the caller makes it atomic."""
    from safetensors.torch import save_file

    save_file(network.state_dict(), folder / WEIGHTS)
    num_conditions = network.head.out_features
    write_json(folder / FACTS, {"sha256": sha256_file(folder / WEIGHTS), "num_conditions": num_conditions, **recipe})


def load_features(name: str, folder: Path | None = None) -> tuple[FeatureNetwork, dict[str, Any]]:
    """The packaged feature network for an image set (or one from `folder`) and its facts. Raises WeightsError."""
    folder = folder or PACKAGED / f"{name}-features"
    facts = read_object(folder / FACTS, _FeatureNotes, _KIND)
    weights = folder / WEIGHTS
    if not has_sha256(weights, facts["sha256"]):
        raise WeightsError(f"{weights} is missing or damaged; {_KIND.remedy}.")
    network = FeatureNetwork(facts["num_conditions"])
    try:
        network.load_state_dict(load_tensors(weights, _KIND.remedy))
    except RuntimeError as error:
        raise WeightsError(f"{weights} holds another network than {FACTS} says; {_KIND.remedy}.") from error
    return network.eval().requires_grad_(False), facts
