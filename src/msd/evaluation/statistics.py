"""Mean and covariance of real images' features as an .npz, which is all that a Frechet distance needs of them.

The keys are EDM's (`mu`, `sigma`), so its files are read as they are published, and ours can be read by its code. What
must be known of them stands in ours beside these, as text; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from msd import checks
from msd.caches import cache_folder
from msd.data.images import ImageSet
from msd.errors import DataError, MsdError, warn
from msd.evaluation.features import Extractor
from msd.evaluation.moments import Moments, Sums
from msd.evaluation.protocol import INCEPTION_METRIC
from msd.files import replacing
from msd.reading import (
    Broken,
    Kind,
    Sha256,
    Stored,
    clause,
    fitted,
    not_itself,
    open_regular,
    parse_json,
    reason,
    validated,
)

SUFFIX = ".npz"
SEEN_AT_A_TIME = 1000
"""Images after which the sums are kept, so that no more is lost when a command is stopped."""
MAX_FEATURES = 2**13
MAX_NOTES = 2**16
_MEAN, _COVARIANCE, _NOTES = "mu", "sigma", "msd"
_KIND = Kind(
    "a file of mean and covariance",
    "give EDM's .npz, or make one with `msd data reference ... --out FILE.npz`",
    DataError,
    schema=1,
)
_Size = Annotated[int, Field(ge=1, le=10**7)]


class SourceNotes(Stored):
    """What is said of the images, and of the network, whose features a file holds."""

    name: str
    metric: str
    num_conditions: _Size
    pixel_shape: tuple[_Size, _Size, _Size]
    num_images: _Size
    """Of the whole set, of which the features may be a sample."""
    images_sha256: Sha256
    feature_network_sha256: Sha256
    licence: str


class _Notes(SourceNotes):
    kind: Literal["reference moments"] = "reference moments"


@dataclass(frozen=True)
class Statistics:
    """Moments of real images' features, and what they are of: `notes` are None of a file that says nothing of itself."""

    moments: Moments
    name: str
    sha256: str
    """Of the file."""
    notes: SourceNotes | None = None


def moments_of(images: ImageSet, network: Extractor, on_progress: Callable[[int], None] = lambda done: None) -> Moments:
    """Moments of the features of all `images`, which never lie in memory together. Raises WeightsError and DataError.

    What was summed is kept in the user's cache: the same call goes on where another was stopped, to the same result.
    """
    network.check_fits(images.pixel_shape)
    path, sums = _begun(images, network)
    on_progress(sums.num if sums else 0)
    while sums is None or sums.num < len(images):
        start = sums.num if sums else 0
        index = torch.arange(start, min(start + SEEN_AT_A_TIME, len(images)))
        values = network.extract(map(images.batch, index.split(network.at_a_time)), on_progress).values
        if bad := checks.num_not_finite(values):
            raise DataError(f"features of {bad} images of {images.name} are not finite; use another evaluation.features.")
        sums = sums or Sums.none(values.shape[1])
        sums.add(values)
        if path and sums.num < len(images):
            path = _keep(path, sums)
    if sums.num < 2:
        raise DataError(f"{images.name} is one image, which has no covariance; give more.")
    return sums.moments()


def forget(images: ImageSet, network: Extractor) -> None:
    """Remove what `moments_of` kept, once its result is safe."""
    try:
        _place(images, network).unlink(missing_ok=True)
    except (OSError, MsdError):  # nothing that anybody waits for
        return


def _place(images: ImageSet, network: Extractor) -> Path:
    return cache_folder() / "features" / f"{network.sha256[:20]}-{images.hash[:20]}-sums.safetensors"


def _begun(images: ImageSet, network: Extractor) -> tuple[Path | None, Sums | None]:
    """Where sums are kept (None: nowhere), and those that are."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        path = _place(images, network)
    except MsdError as error:
        warn(f"sums are not kept, should this be stopped ({clause(error)}); set MSD_CACHE to a folder.")
        return None, None
    if not os.path.lexists(path):
        return path, None
    try:
        with open_regular(path) as stream:
            content = stream.read(2**32)
        tensors = load(content)
        sums = Sums(int(tensors["num"]), tensors["total"], tensors["products"])
        num, num_features = sums.num, len(sums.total)
        is_whole = sums.products.shape == (num_features, num_features) and 0 < num < len(images)
        if not is_whole or not torch.equal(tensors["checksum"], _checksum(sums)):
            raise Broken("it is damaged")
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        warn(f"{path} cannot be read ({reason(error)}); the images are looked at from the first.")
        return path, None
    return path, sums


def _keep(path: Path, sums: Sums) -> Path | None:
    """Returns where to keep the next ones: nowhere, once that fails."""
    from safetensors.torch import save

    tensors = {"num": torch.tensor(sums.num), "total": sums.total, "products": sums.products, "checksum": _checksum(sums)}
    content = save(tensors)
    try:
        with replacing(path, len(content)) as temporary:
            temporary.write_bytes(content)
    except MsdError as error:
        warn(f"sums are not kept, should this be stopped ({clause(error)}); set MSD_CACHE to a folder.")
        return None
    return path


def _checksum(sums: Sums) -> Tensor:
    digest = hashlib.sha256(str(sums.num).encode())
    for tensor in (sums.total, sums.products):
        digest.update(tensor.contiguous().numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


def write_statistics(path: Path, moments: Moments, images: ImageSet, network: Extractor) -> None:
    """Write the file, whole or not at all. Raises RunError for a full disk."""
    notes = {
        "schema": _KIND.schema,
        "kind": "reference moments",
        "name": images.name,
        "metric": network.metric,
        "num_conditions": images.num_conditions,
        "pixel_shape": list(images.pixel_shape),
        "num_images": len(images),
        "images_sha256": images.hash,
        "feature_network_sha256": network.sha256,
        "licence": images.licence,
    }
    stream = io.BytesIO()
    arrays = {_MEAN: moments.mean.numpy(), _COVARIANCE: moments.covariance.numpy(), _NOTES: np.array(json.dumps(notes))}
    np.savez(stream, allow_pickle=False, **arrays)
    content = stream.getvalue()
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def read_statistics(path: Path, network: Extractor) -> Statistics:
    """Read and check a file of moments of `network`'s features; those of another one are refused. Raises DataError."""
    arrays, sha256 = _read(path)
    if _MEAN not in arrays or _COVARIANCE not in arrays:
        has = fitted(", ".join(map(repr, sorted(arrays))) or "nothing", 80)
        raise DataError(f"{path} has {has}, not {_MEAN!r} and {_COVARIANCE!r}; {_KIND.remedy}.")
    notes = _noted(arrays[_NOTES], path) if _NOTES in arrays else None
    if notes is None and network.metric != INCEPTION_METRIC:
        raise DataError(
            f"{path} does not say whose features its statistics are of, as EDM's, which are Inception's, and "
            f"{network.source} is another network; set evaluation.features to inception:FILE."
        )
    if notes is not None and notes.feature_network_sha256 != network.sha256:
        raise DataError(
            f"{path} holds statistics of {notes.metric} by another network ({notes.feature_network_sha256[:12]}) than "
            f"{network.source} ({network.metric}, {network.sha256[:12]}); set evaluation.features to the one that made it, "
            "or make it again."
        )
    mean, covariance = (_numbers(arrays[name], name, path) for name in (_MEAN, _COVARIANCE))
    if wrong := _not_moments(mean, covariance, network):
        raise DataError(f"{path} ({_KIND.what}) has {wrong}; {_KIND.remedy}.")
    return Statistics(Moments(mean, covariance), notes.name if notes else path.name, sha256, notes)


def _not_moments(mean: Tensor, covariance: Tensor, network: Extractor) -> str:
    num = getattr(network.network, "num_features", None)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or num not in (None, len(mean)):
        wanted = "" if num is None else f", not ({num},) and ({num}, {num})"
        return f"{_MEAN} {tuple(mean.shape)} and {_COVARIANCE} {tuple(covariance.shape)}{wanted}"
    if not mean.isfinite().all() or not covariance.isfinite().all():
        return "numbers that are not finite"
    if (covariance - covariance.T).abs().max() > 1e-6 * covariance.abs().max() or covariance.diagonal().min() < 0:
        return f"a {_COVARIANCE} that is no covariance (not symmetric, or with variances below 0)"
    return ""


def _numbers(array: NDArray[Any], name: str, path: Path) -> Tensor:
    if array.dtype.kind != "f":
        raise DataError(f"{path}: {name} is of type {array.dtype}, not of floats; {_KIND.remedy}.")
    return torch.from_numpy(array.astype(np.float64))


def _noted(array: NDArray[Any], path: Path) -> SourceNotes:
    try:
        notes = parse_json(str(array[()]))
    except Broken as error:
        raise _KIND.unreadable(path, reason(error)) from error
    return validated(notes, _Notes, _KIND, source=str(path))


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """The arrays that matter, each of a size that was looked at before it was read, and the checksum of the file."""
    most = 2 * 8 * MAX_FEATURES * (MAX_FEATURES + 1)
    try:
        with open_regular(path) as stream:
            content = stream.read(most + 1)
        if what := not_itself(content):
            raise DataError(f"{path} is {what}.")
        if len(content) > most:
            raise Broken(f"it is larger than {most:,} bytes")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = sorted({name.removesuffix(".npy") for name in archive.namelist()})
            found = {name: _array(archive, name) if name in (_MEAN, _COVARIANCE, _NOTES) else np.empty(0) for name in names}
    except FileNotFoundError as error:
        raise DataError(f"{path} ({_KIND.what}) does not exist; {_KIND.remedy}.") from error
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise _KIND.unreadable(path, reason(error)) from error
    return found, hashlib.sha256(content).hexdigest()


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)  # pyright: ignore[reportArgumentType]
        read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
        if dtype.hasobject:
            raise Broken(f"its {name} are pickled objects, which could run code")
        size = math.prod(shape) * dtype.itemsize
        limit = MAX_NOTES if name == _NOTES else 8 * MAX_FEATURES * (MAX_FEATURES + 1)
        if dtype.kind not in ("U" if name == _NOTES else "fiub") or size > limit:
            raise Broken(f"its {name} are {dtype} {shape}")
        data = stream.read(size + 1)
        if len(data) != size:
            raise Broken(f"its {name} have {len(data):,} bytes, not {size:,}" if len(data) < size else f"its {name} go on")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
