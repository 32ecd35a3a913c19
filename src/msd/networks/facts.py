"""What is written beside a network's weights, read and checked without torch: schema, checksums, identity.

A saved denoiser is three files: the weights, `config.json` (diffusers' own, what the network is built from) and
`denoiser.json` (how it is used, and the checksums of the other two).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msd import checks
from msd.errors import WeightsError
from msd.files import check_schema, read_json, sha256_file, sha256_json

SCHEMA = 2
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
FACTS = "denoiser.json"
FILES = (WEIGHTS, CONFIG, FACTS)
"""All that a saved denoiser consists of; whatever else lies in its folder is never read."""
REQUIRED = ("network", "weights_sha256", "config_sha256", "spec")


def read_facts(folder: str | Path) -> dict[str, Any]:
    """The contents of `denoiser.json`, of our schema. Raises WeightsError."""
    folder = checks.path(folder, "a denoiser's folder", error=WeightsError)
    path = folder / FACTS
    what = "a saved denoiser's description"
    value = read_json(path, what=what, error=WeightsError)
    facts = check_schema(value, SCHEMA, source=str(path), what=what, made="saved", error=WeightsError)
    for name in REQUIRED:
        if name not in facts:
            raise WeightsError(f"{path} lacks {name!r}; restore it from where the weights came, or make them again.")
    if not isinstance(facts["spec"], dict):
        raise WeightsError(f"{path} has no object `spec`; restore it from where the weights came, or make them again.")
    return facts


def verified_facts(folder: Path) -> dict[str, Any]:
    """`read_facts`, once both files it speaks of are the recorded ones, byte for byte. Raises WeightsError."""
    facts = read_facts(folder)
    for name, found in (("config_sha256", config_sha256(folder)), ("weights_sha256", weights_sha256(folder))):
        if found != facts[name]:
            path = folder / (CONFIG if name == "config_sha256" else WEIGHTS)
            raise WeightsError(f"{path} is damaged: its checksum is not the recorded one; restore it, or make it again.")
    return facts


def config_sha256(folder: Path) -> str:
    """Checksum of what the network is built from; notes of diffusers' own (keys with a leading underscore) don't count."""
    return sha256_json({key: value for key, value in read_config(folder).items() if not key.startswith("_")})


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of `config.json`. Raises WeightsError."""
    value = read_json(folder / CONFIG, what="a network's configuration", error=WeightsError)
    if not isinstance(value, dict):
        raise WeightsError(f"{folder / CONFIG} is not a JSON object; restore it, or make the model again.")
    return value


def weights_sha256(folder: Path) -> str:
    """Checksum of the weights' file as it is now. Raises WeightsError when there is none."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; restore it, or make the model again.")
    return sha256_file(path)


def identity(facts: dict[str, Any]) -> str:
    """The hash that `denoiser_hash` gives if the folder is as its `facts` say."""
    return sha256_json([facts[name] for name in REQUIRED])


def denoiser_hash(folder: Path) -> str:
    """Identity of a saved denoiser, by content as it is now: weights, configuration, and the way they are used.

    Where the folder lies and what else is noted beside the weights (lineage, quality) do not count. Raises WeightsError.
    """
    content = {"weights_sha256": weights_sha256(folder), "config_sha256": config_sha256(folder)}
    return identity(read_facts(folder) | content)
