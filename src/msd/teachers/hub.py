"""Folders on the Hugging Face hub, only where somebody names one: `hub:OWNER/NAME`, or `hub:OWNER/NAME@REVISION`."""

from __future__ import annotations

import re
from pathlib import Path

from msd.errors import WeightsError
from msd.reading import fitted, reason
from msd.recipe import HUB_PREFIX

DESCRIPTIONS = ("*.json", "README.md", "**/*.json")
WEIGHTS = ("*.safetensors", "*.bin")
"""Endings of weights, the ones without pickles first."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def located(source: str) -> Path:
    """The path that a source is, or that of the hub's folder which it names. Raises WeightsError."""
    return fetched(source) if source.startswith(HUB_PREFIX) else Path(source)


def fetched(source: str) -> Path:
    """The folder that `hub:OWNER/NAME` stands for: in the hub's cache, downloaded if it is not there yet.

    Raises WeightsError for a name that is none, and, while offline, for one that was not downloaded before.
    """
    name = source.removeprefix(HUB_PREFIX)
    if not _NAME.fullmatch(name):
        raise WeightsError(
            f"{fitted(source, 80)} names nothing on the hub; write {HUB_PREFIX}OWNER/NAME, or a folder's path."
        )
    repository, _, revision = name.partition("@")
    folder = _snapshot(source, repository, revision or None, list(DESCRIPTIONS))
    for ending in WEIGHTS:
        folder = _snapshot(source, repository, revision or None, [*DESCRIPTIONS, ending, f"**/{ending}"])
        if any(folder.rglob(ending)):
            break
    return folder


def _snapshot(source: str, repository: str, revision: str | None, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except Exception as error:  # of the hub, of requests, of the disk: each with several kinds
        raise WeightsError(
            f"{source} cannot be had from the hub ({fitted(reason(error), 200)}); connect to it, or download the folder "
            "elsewhere and give its path."
        ) from error
