"""What distances are measured in: feature networks of several kinds behind one face, each known by its hash and its name.

Numbers compare only under the same feature network, which is why its hash is stored beside every one of them, and its name
says whose it is: FD-digits, FD-cats, FID-Lite0; what may be called FID, `protocol` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from msd.errors import WeightsError
from msd.evaluation import inception, lite0
from msd.evaluation.classifier import EXTRACTED_AT_A_TIME, FeatureNetwork
from msd.evaluation.inception_file import load_inception
from msd.evaluation.protocol import INCEPTION_METRIC, LITE0_METRIC
from msd.files import has_sha256, sha256_file, write_json
from msd.networks.tensors import load_tensors, save_tensors
from msd.reading import Kind, Notes, Sha256, read_object
from msd.recipe import CLASSIFIER, INCEPTION_PREFIX, LITE0, PACKAGED_PREFIX

PACKAGED = Path(__file__).parent.parent / "weights"
WEIGHTS = "features.safetensors"
FACTS = "features.json"
FILES = (WEIGHTS, FACTS)
FOLDER = "features"
"""Of a run, where its own network lies."""
TRAIN = "msd pretrain RECIPE --network features"
_KIND = Kind(
    "a feature network's description",
    f"reinstall msd, or remove the folder and make it again with `{TRAIN}`",
    WeightsError,
)
CPU = torch.device("cpu")
ON_A_GPU = 128
"""Images that go through a network together on a GPU, at least."""
_Side = Annotated[int, Field(ge=1, le=4096)]


class _FeatureNotes(Notes):
    sha256: Sha256
    num_conditions: int = Field(ge=1, le=10**6)
    data: str
    data_sha256: str | None = None
    pixel_shape: tuple[Annotated[int, Field(ge=1, le=16)], _Side, _Side] = (1, 8, 8)


@dataclass(frozen=True)
class Features:
    """What the metrics look at: features `[N, D]` of a set of images, and predicted labels `[N]` if the network has any."""

    values: Tensor
    predicted: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """A feature network: `network(pixels [N, C, H, W]) -> features [N, D], class scores or None`, and what it is."""

    network: nn.Module
    source: str
    """As a recipe names it."""
    sha256: str
    metric: str
    """What a Frechet distance of its features is called, before `protocol` says what of it is FID."""
    pixel_shape: tuple[int, ...] | None = None
    """Of the images that it takes; None: of any."""
    num_conditions: int | None = None
    """Classes that it tells apart; None: none of the images' own."""
    at_a_time: int = EXTRACTED_AT_A_TIME
    device: torch.device = CPU
    """Where the network is; features lie on the CPU."""

    def on(self, device: torch.device) -> Extractor:
        """The same network there."""
        if device == self.device:
            return self
        at_a_time = self.at_a_time if device.type == "cpu" else max(self.at_a_time, ON_A_GPU)
        return replace(self, network=self.network.to(device), device=device, at_a_time=at_a_time)

    def check_fits(self, pixel_shape: tuple[int, ...]) -> None:
        """Raises WeightsError when it cannot look at images of this shape."""
        if self.pixel_shape not in (None, tuple(pixel_shape)):
            takes, given = ("x".join(map(str, shape)) for shape in (self.pixel_shape or (), pixel_shape))
            raise WeightsError(
                f"{self.source} takes {takes} images, these are {given}; set evaluation.features={CLASSIFIER} (`{TRAIN}`)."
            )

    @torch.no_grad()
    def extract(self, batches: Iterable[Tensor], on_progress: Callable[[int], None] = lambda done: None) -> Features:
        """Features of all images, which come as float32 `[n, C, H, W]` in [-1, 1]; `on_progress` is told of each n."""
        values, predicted = [], []
        for batch in batches:
            features, scores = self.network(batch.to(self.device))
            values.append(features.cpu())
            if scores is not None:
                predicted.append(scores.argmax(1).cpu())
            on_progress(len(batch))
        return Features(torch.cat(values), torch.cat(predicted) if predicted else None)


def save_classifier(network: FeatureNetwork, folder: Path, recipe: dict[str, Any]) -> None:
    """Write weights and facts into `folder`; the caller makes it atomic."""
    save_tensors(network.state_dict(), folder / WEIGHTS)
    num_conditions = network.head.out_features
    write_json(folder / FACTS, {"sha256": sha256_file(folder / WEIGHTS), "num_conditions": num_conditions, **recipe})


def read_facts(folder: Path) -> dict[str, Any]:
    """What stands beside the weights of a classifier. Raises WeightsError."""
    return read_object(folder / FACTS, _FeatureNotes, _KIND)


def load_classifier(folder: Path, source: str | None = None) -> Extractor:
    """The classifier saved in `folder`, frozen; sentences call it `source`. Raises WeightsError."""
    facts = read_facts(folder)
    weights = folder / WEIGHTS
    if not has_sha256(weights, facts["sha256"]):
        raise WeightsError(f"{weights} is missing or damaged; {_KIND.remedy}.")
    shape: tuple[int, int, int] = tuple(facts.get("pixel_shape") or (1, 8, 8))  # pyright: ignore[reportAssignmentType]
    tensors, why = load_tensors(weights, _KIND.remedy), f"{weights} holds another network than {FACTS} says"
    with torch.device("meta"):  # nothing is allocated for what the facts say before the weights agree
        wanted = FeatureNetwork(facts["num_conditions"], shape).state_dict()
    if {name: value.shape for name, value in wanted.items()} != {name: value.shape for name, value in tensors.items()}:
        raise WeightsError(f"{why}; {_KIND.remedy}.")
    with torch.random.fork_rng(devices=[]):
        network = FeatureNetwork(facts["num_conditions"], shape)
    network.load_state_dict(tensors)
    return Extractor(
        network.eval().requires_grad_(False),
        source or str(folder),
        facts["sha256"],
        f"FD-{facts['data']}",
        shape,
        facts["num_conditions"],
    )


def load_network(features: str, run_folder: Path | None = None) -> Extractor:
    """The feature network that `evaluation.features` names; `classifier` is the one of the run in `run_folder`.

    Raises WeightsError for one that is missing or damaged, LibraryError where lite0's weights are not installed.
    """
    if features == LITE0:
        return Extractor(lite0.load_lite0(), LITE0, lite0.SHA256, LITE0_METRIC, at_a_time=lite0.AT_A_TIME)
    if features.startswith(INCEPTION_PREFIX):
        network, sha256 = load_inception(Path(features.removeprefix(INCEPTION_PREFIX)))
        return Extractor(network, features, sha256, INCEPTION_METRIC, at_a_time=inception.AT_A_TIME)
    if features == CLASSIFIER:
        if run_folder is None:
            raise WeightsError(
                f"evaluation.features={CLASSIFIER} is the network of a run, and there is no run here; "
                "set evaluation.features to its folder (RUN/features)."
            )
        if not (run_folder / FOLDER / FACTS).exists():
            raise WeightsError(f"{run_folder / FOLDER} has no feature network yet; run `{TRAIN} --out {run_folder}` first.")
        return load_classifier(run_folder / FOLDER, CLASSIFIER)
    if features.startswith(PACKAGED_PREFIX):
        return load_classifier(packaged_folder(features, "features"), features)
    return load_classifier(Path(features))


def packaged_folder(source: str, what: str) -> Path:
    """Where `packaged:NAME` has its `what` ("features", "reference"). Raises WeightsError naming those that there are."""
    known = sorted(path.name.removesuffix(f"-{what}") for path in PACKAGED.glob(f"*-{what}"))
    name = source.removeprefix(PACKAGED_PREFIX)
    if name not in known:
        there = f"choose {' or '.join(PACKAGED_PREFIX + one for one in known)}" if known else "there are none of them yet"
        raise WeightsError(f"{source} has no {what} in msd; {there}, or give another evaluation.{what}.")
    return PACKAGED / f"{name}-{what}"
