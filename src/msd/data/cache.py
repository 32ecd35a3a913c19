"""The user's images, decoded once: a folder for each source and way of decoding, checked whenever it is opened.

It holds `pixels.bin` (uint8 `[N, C, S, S]`, by label, then by checksum), `labels.bin` (int64 `[N]`) and `images.json`. It is
made in a temporary folder and renamed; two processes that make it at once make the same, and the second one's stays.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from msd import checks
from msd.caches import cache_folder
from msd.data.decode import Decoding, background, quiet
from msd.data.findings import Findings
from msd.data.images import ImageSet, hash_header
from msd.data.making import OnProgress, Reading
from msd.data.mapped import Mapped
from msd.data.sources import Key, Source, scan
from msd.data.sources.source import shown, slug
from msd.data.staging import LABELS, PIXELS, Staging
from msd.errors import DataError, MsdError, warn
from msd.files import ensure_writable, remove_leftovers, replacing_folder, sha256_json, write_json
from msd.reading import Kind, Sha256, Stored, clause, open_regular, read_model, reason
from msd.recipe import DataSection

DESCRIPTION = "images.json"
SCHEMA = 1
DECODER = 1
"""Raised whenever the same source would be decoded to other pixels."""
_KIND = Kind("a cache of images", "remove it", DataError, schema=SCHEMA)
_CACHE = Kind("a cache of images", "give the command again, which decodes the images again where it must", DataError)
_making = threading.Lock()


class _Stored(Stored):
    identity: Sha256
    shape: tuple[int, int, int]
    num_images: int = Field(ge=1)
    classes: tuple[str, ...]
    findings: Findings
    hash: Sha256
    """The ImageSet's, of pixels, labels and shape."""


class _Sealed(_Stored):
    checksum: Sha256
    """Of all the rest."""


def open_images(data: DataSection, on_progress: OnProgress | None = None) -> ImageSet:
    """The images of `data.source`, mapped from their cache, which is made first if need be.

    Raises DataError for a source, a class or an image that cannot be used, RunError where the disk takes no more.
    """
    folder, stored = _kept(data, on_progress or _silent)
    (pixels, mapped), labels = _mapped(folder / PIXELS, stored), torch.from_numpy(np.fromfile(folder / LABELS, "<i8"))
    return ImageSet(
        data.name or slug(Path(data.source)), pixels, labels, len(stored.classes), data.licence, stored.classes,
        data.prior == "uniform", stored.hash, mapped,
    )  # fmt: skip


def findings(data: DataSection, on_progress: OnProgress | None = None) -> tuple[Findings, Path]:
    """What was found while the cache of `data.source` was made, and its folder; made first if need be. Raises as
    `open_images`."""
    folder, stored = _kept(data, on_progress or _silent)
    return stored.findings, folder


def _kept(data: DataSection, on_progress: OnProgress) -> tuple[Path, _Stored]:
    """The cache of what the source holds now: its folder, and what it says of itself, verified."""
    checks.instance(data, DataSection, "data", "give a DataSection", error=DataError)
    if data.is_packaged:
        raise DataError(f"{data.source} comes with msd and has no cache; give the path of your own images.")
    source = scan(data.source)
    source.check_split(data.split)
    key = _key(source)
    how = Decoding(data.size, data.channels, data.fit, background(data.background))
    identity = sha256_json(
        {
            "decoder": DECODER, "source": os.fsencode(source.path.resolve()).hex(), "key": key.digest, "split": data.split,
            "size": data.size, "channels": data.channels, "fit": data.fit, "background": list(how.background),
            "skip_damaged": data.skip_damaged, "classes": list(data.classes or ()),
        }
    )  # fmt: skip
    folder = cache_folder(DataError) / "images" / f"{slug(source.path)}-{identity[:20]}"
    with _making:
        stored = _verified(folder, identity)
        if stored is None:
            stored = _made(folder, identity, source, key, data, how, on_progress)
    return folder, stored


def _silent(done: int, total: int) -> None:
    pass


def _key(source: Source) -> Key:
    try:
        return source.key()
    except OSError as error:
        raise DataError(f"{shown(str(source.path))} cannot be read ({reason(error)}); make it readable.") from error


def _verified(folder: Path, identity: str) -> _Stored | None:
    """What a cache says of itself; None where there is none, or one that is damaged, which is told."""
    if not os.path.lexists(folder):
        return None
    try:
        stored = read_model(folder / DESCRIPTION, _Sealed, _KIND)
        said = stored.model_dump(mode="json", exclude={"checksum"})
        if stored.identity != identity or stored.checksum != sha256_json(said) or stored.hash != _hash(folder, stored):
            raise DataError(f"{folder} is damaged (its checksum is not the recorded one); remove it.")
        return stored
    except MsdError as error:
        warn(f"{clause(error)}; the images are decoded again.")
        return None


def _hash(folder: Path, stored: _Stored) -> str:
    """The ImageSet's hash, of what the files say: read, not mapped, so that it costs no memory."""
    digest = hashlib.sha256(hash_header(stored.shape))
    for name in (PIXELS, LABELS):
        try:
            with open_regular(folder / name) as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except (OSError, ValueError) as error:
            raise _KIND.unreadable(folder / name, reason(error)) from error
    return digest.hexdigest()


def _made(
    folder: Path, identity: str, source: Source, key: Key, data: DataSection, how: Decoding, on_progress: OnProgress
) -> _Stored:
    images = folder.parent
    try:
        ensure_writable(images)
    except MsdError as error:
        raise DataError(f"{clause(error)}; set MSD_CACHE to a folder for caches of images.") from error
    remove_leftovers(images)
    ours = (PIXELS, LABELS, DESCRIPTION)
    with replacing_folder(folder, ours) as temporary, Staging(temporary, data.channels) as staging, quiet():
        reading = Reading(source, data)
        reading.fill(staging, how, on_progress)
        names, labels = reading.labelled()
        if _key(source) != key:
            raise DataError(f"{shown(str(source.path))} was changed while it was read; give the command again.")
        content = staging.finish(labels)
        found = reading.findings(staging, content)
        stored = _Stored(
            identity=identity, shape=staging.shape, num_images=staging.num, classes=names, findings=found, hash=content
        )
        said = stored.model_dump(mode="json")
        write_json(temporary / DESCRIPTION, {"schema": SCHEMA} | said | {"checksum": sha256_json(said)})
    return stored


def _mapped(path: Path, stored: _Stored) -> tuple[Tensor, Mapped]:
    """The pixels, and what they are mapped from. Nobody may write to them."""
    shape = (stored.num_images, *stored.shape)
    mapped = Mapped.of(path, math.prod(shape), _CACHE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(mapped.array("u1", shape)), mapped
