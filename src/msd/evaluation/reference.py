"""What distances are measured to: features of real images, taken from them here or shipped as a file where they are not.

A file is safetensors with `features` `[N, D]`, float16 or float32, and `labels` `[N]`; all that must be known of them stands
in its metadata, with a checksum of both. A file of no more than their mean and covariance (`statistics`) is an .npz.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from msd import checks
from msd.caches import cache_folder
from msd.data.images import ImageSet
from msd.errors import DataError, MsdError, warn
from msd.evaluation.features import Extractor, packaged_folder
from msd.evaluation.statistics import SUFFIX, SourceNotes, Statistics, read_statistics
from msd.files import replacing
from msd.reading import Broken, Kind, Sha256, clause, open_regular, parse_json, reason, validated
from msd.recipe import PACKAGED_PREFIX

FILE = "reference.safetensors"
MOST_REAL = 100_000
"""Images that a reference is made of at most: their features lie in memory."""
KEPT_FROM = 2000
"""Of fewer images features are taken anew each time, which is quicker than looking for them."""
MAX_BYTES = 4 * 2**30
_KEY = "msd"
_KIND = Kind(
    "a file of reference features",
    "make it again with `msd data reference`, or set evaluation.reference=data",
    DataError,
    schema=1,
)


class _Notes(SourceNotes):
    content_sha256: Sha256
    kind: Literal["reference features"] = "reference features"


@dataclass(frozen=True)
class Reference:
    """Features `[N, D]` float32 and labels `[N]` of real images, and what they are of."""

    features: Tensor
    labels: Tensor
    name: str
    sha256: str
    """Identity of what is measured to: that of the images, or of the file where it is one."""
    metric: str
    num_conditions: int
    pixel_shape: tuple[int, ...]
    num_images: int
    images_sha256: str
    feature_network_sha256: str
    licence: str

    def __len__(self) -> int:
        return len(self.labels)


def evenly(num: int, most: int) -> Tensor:
    """Indices of at most `most` of `num` things, evenly over their order; of images in order of class, of each its share."""
    return torch.arange(num) if num <= most else torch.arange(most) * num // most


def reference_of(
    images: ImageSet, network: Extractor, most: int = MOST_REAL, on_progress: Callable[[int], None] = lambda done: None
) -> Reference:
    """Features of `images`, at most of so many of them, evenly chosen. Raises WeightsError when the network doesn't fit."""
    network.check_fits(images.pixel_shape)
    index = evenly(len(images), most)
    values = network.extract(_batches(images, index, network.at_a_time), on_progress).values
    if bad := checks.num_not_finite(values):
        raise DataError(f"features of {bad} images of {images.name} are not finite; use another evaluation.features.")
    return Reference(
        values,
        images.labels[index],
        images.name,
        images.hash,
        network.metric,
        images.num_conditions,
        images.pixel_shape,
        len(images),
        images.hash,
        network.sha256,
        images.licence,
    )


def _batches(images: ImageSet, index: Tensor, size: int) -> Iterator[Tensor]:
    """In order, without copying what lies in a file and is wanted whole."""
    if len(index) == len(images):
        yield from images.batches(size)
    else:
        yield from (images.batch(some) for some in index.split(size))


def kept_reference(
    images: ImageSet, network: Extractor, most: int = MOST_REAL, on_progress: Callable[[int], None] = lambda done: None
) -> Reference:
    """As `reference_of`, kept in the user's cache by the hashes of network and images; where it can't be, with a warning."""
    num = min(len(images), most)
    if num < KEPT_FROM and network.num_conditions is not None:
        return reference_of(images, network, most, on_progress)
    network.check_fits(images.pixel_shape)
    try:
        path = cache_folder() / "features" / f"{network.sha256[:20]}-{images.hash[:20]}-{num}.safetensors"
    except MsdError as error:
        warn(f"features of {images.name} are not kept for the next time ({clause(error)}); set MSD_CACHE to a folder.")
        return reference_of(images, network, most, on_progress)
    found = _found(path, images, network, most) if os.path.lexists(path) else None
    if found is not None:
        on_progress(num)
        return found
    found = reference_of(images, network, most, on_progress)
    try:
        write_reference(path, found, torch.float32)
    except MsdError as error:
        warn(f"features of {images.name} are not kept for the next time ({clause(error)}); set MSD_CACHE to a folder.")
    return found


def _found(path: Path, images: ImageSet, network: Extractor, most: int) -> Reference | None:
    """What is kept of the images; None, with a warning, where it is broken or of others."""
    try:
        found, labels = read_reference(path, network), images.labels[evenly(len(images), most)]
    except MsdError as error:
        warn(f"{clause(error)}; it is made again.")
        return None
    if found.images_sha256 != images.hash or not torch.equal(found.labels, labels):
        warn(f"{path} holds features of other images than its name says; it is made again.")
        return None
    # What a set and its classes are called is not part of its identity.
    said = {"name": images.name, "metric": network.metric, "licence": images.licence, "sha256": images.hash}
    return replace(found, num_conditions=images.num_conditions, **said)


def write_reference(path: Path, reference: Reference, dtype: torch.dtype = torch.float16) -> None:
    """Write the file, whole or not at all. Raises DataError for features too large for `dtype`, RunError for a full disk."""
    from safetensors.torch import save

    features, labels = reference.features.to(dtype).contiguous(), reference.labels.contiguous()
    if bad := checks.num_not_finite(features):
        raise DataError(f"features of {bad} images are too large for {dtype}; use another evaluation.features.")
    notes = {
        "schema": _KIND.schema,
        "kind": "reference features",
        "name": reference.name,
        "metric": reference.metric,
        "num_conditions": reference.num_conditions,
        "pixel_shape": list(reference.pixel_shape),
        "num_images": reference.num_images,
        "images_sha256": reference.images_sha256,
        "feature_network_sha256": reference.feature_network_sha256,
        "licence": reference.licence,
        "content_sha256": _content(features, labels),
    }
    content = save({"features": features, "labels": labels}, {_KEY: json.dumps(notes)})
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def _content(features: Tensor, labels: Tensor) -> str:
    digest = hashlib.sha256(f"{features.dtype} {tuple(features.shape)} {tuple(labels.shape)}".encode())
    for tensor in (features, labels):
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def load_reference(source: str, network: Extractor) -> Reference | Statistics:
    """The file that `evaluation.reference` names: `packaged:NAME`, or a path. Raises DataError and WeightsError."""
    if source.startswith(PACKAGED_PREFIX):
        return read_reference(packaged_folder(source, "reference") / FILE, network)
    path = Path(source)
    return read_statistics(path, network) if path.suffix == SUFFIX else read_reference(path, network)


def read_reference(path: Path, network: Extractor | None = None) -> Reference:
    """Read and check a file of features; made with another `network` than this one it is refused. Raises DataError."""
    notes, features, labels, file = _read(path)
    if network is not None and notes.feature_network_sha256 != network.sha256:
        raise DataError(
            f"{path} holds features of {notes.metric} by another network than {network.source} "
            f"({network.metric}, {network.sha256[:12]}); set evaluation.features to the one that made it, or {_KIND.remedy}."
        )
    wrong = _not_as_said(notes, features, labels)
    if wrong:
        raise DataError(f"{path} ({_KIND.what}) holds {wrong}; {_KIND.remedy}.")
    said = notes.model_dump(exclude={"content_sha256", "kind"})
    return Reference(features.float(), labels, sha256=file, **said)


def _not_as_said(notes: _Notes, features: Tensor, labels: Tensor) -> str:
    is_two_dimensional = features.ndim == 2 and features.dtype in (torch.float16, torch.float32) and len(features) > 1
    if not is_two_dimensional or labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        return f"features {tuple(features.shape)} and labels {tuple(labels.shape)}, which is no set of them"
    if len(features) > notes.num_images:
        return "more features than it says there were images"
    if checks.num_not_finite(features):
        return "numbers that are not finite"
    if int(labels.min()) < 0 or int(labels.max()) >= notes.num_conditions:
        return "labels beyond its classes"
    return "other content than its checksum says" if _content(features, labels) != notes.content_sha256 else ""


def _read(path: Path) -> tuple[_Notes, Tensor, Tensor, str]:
    """Notes, features, labels, and the checksum of the file. Raises DataError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Broken(f"it is larger than {MAX_BYTES:,} bytes")
        length = int.from_bytes(content[:8], "little")
        header = parse_json(content[8 : 8 + length].decode()) if 8 + length <= len(content) else None
        tensors = load(content)
        text = header["__metadata__"][_KEY]  # pyright: ignore[reportOptionalSubscript]
        notes = parse_json(text)
        features, labels = tensors["features"], tensors["labels"]
    except FileNotFoundError as cause:
        raise _KIND.error(f"{path} ({_KIND.what}) does not exist; {_KIND.remedy}.") from cause
    except (KeyError, TypeError) as cause:
        raise _KIND.error(f"{path} is not {_KIND.what}; {_KIND.remedy}.") from cause
    except (OSError, ValueError, SafetensorError) as cause:
        raise _KIND.unreadable(path, reason(cause)) from cause
    return validated(notes, _Notes, _KIND, source=str(path)), features, labels, hashlib.sha256(content).hexdigest()
