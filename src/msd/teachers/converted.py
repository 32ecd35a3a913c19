"""Checkpoints of other makers as denoiser folders: the one way in which any of them becomes a teacher."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from msd.caches import cache_folder
from msd.errors import MsdError, WeightsError, warn
from msd.files import remove_leftovers, replacing_folder, sha256_file, sha256_json
from msd.networks.facts import AUTOENCODER_FILES, FACTS, FILES, Origin, verified_facts
from msd.networks.folder import save_denoiser
from msd.reading import clause, not_itself, open_regular, reason
from msd.recipe import TEACHER
from msd.teachers.edm import read_edm
from msd.teachers.foreign import Foreign
from msd.teachers.pipeline import is_pipeline, pipeline_files, read_pipeline

FORMATS: dict[str, Callable[[Path], Foreign]] = {".pkl": read_edm}
"""By the end of its name, how a file is read; a new format is a line here."""


def is_foreign(path: Path) -> bool:
    """Whether something of another maker seems to be at a path: any file, or a folder of diffusers'."""
    return path.is_file() or (not (path / FACTS).exists() and is_pipeline(path))


def read_foreign(path: Path) -> Foreign:
    """The network in a file, or in a folder of diffusers', of another maker.

    Raises WeightsError for a format that is not known, or a file that is none.
    """
    if path.is_dir():
        return read_pipeline(path)
    reader = FORMATS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(FORMATS)
        raise WeightsError(f"{path} is of no known format; files that end in {known} are read, and folders of diffusers'.")
    try:
        with open_regular(path) as stream:
            begin = stream.read(100)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({reason(error)}); give a checkpoint.") from error
    if what := not_itself(begin):
        raise WeightsError(f"{path} is {what}.")
    if begin.startswith(b"PK"):
        raise WeightsError(
            f"{path} is a zip archive, as of torch.save, and no pickle of EDM's; give the checkpoint as it was published."
        )
    return reader(path)


def convert(path: Path, folder: Path, licence: str | None = None) -> Foreign:
    """Write the network at `path` as a denoiser's folder, atomically; `licence` is what its maker allows.

    Raises WeightsError for a file that cannot be used, RunError where the folder cannot be written.
    """
    found = read_foreign(path)
    if licence is not None:
        found = replace(found, spec=replace(found.spec, licence=licence))
    denoiser = found.denoiser(path)
    origin = Origin(format=found.format, file=path.resolve().name, sha256=content_of(path))
    facts: dict[str, Any] = {"role": TEACHER, "origin": origin.model_dump()}
    if found.classes:
        facts["classes"] = list(found.classes)
    with replacing_folder(folder, (*FILES, *AUTOENCODER_FILES)) as temporary:
        save_denoiser(denoiser, temporary, **facts)
    return found


def content_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, of all that is read of it. Raises WeightsError."""
    if path.is_file():
        return sha256_file(path, WeightsError)
    # By the names of its parts, not its own: a folder is the same under any other name.
    files = [["" if file.parent == path else file.parent.name, file.name, file] for file in pipeline_files(path)]
    return sha256_json([[part, name, sha256_file(file, WeightsError)] for part, name, file in files])


def converted(path: Path) -> Path:
    """The denoiser's folder in the user's cache that holds the network at `path` (a file or a folder), made if need be.

    It is known by content: a changed file has another folder. Raises as `convert`.
    """
    sha256 = content_of(path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem)[:40].strip(".-") or TEACHER
    folder = cache_folder(WeightsError) / "teachers" / f"{name}-{sha256[:20]}"
    if os.path.lexists(folder):
        try:
            if (verified_facts(folder).get("origin") or {}).get("sha256") == sha256:
                return folder
        except MsdError as error:
            warn(f"{clause(error)}; {path} is converted again.")
    remove_leftovers(folder.parent)
    convert(path, folder)
    return folder
