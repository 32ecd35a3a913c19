"""What is written beside a network's weights, read and checked without torch: schema, checksums, identity.

A saved denoiser is three files: the weights, `config.json` (what the network is built from; diffusers' own where it is a
network of diffusers) and `denoiser.json` (how it is used, and the checksums of the other two).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from msd import checks
from msd.errors import WeightsError
from msd.files import sha256_file, sha256_json
from msd.reading import Kind, Notes, Sha256, read_object

SCHEMA = 2
WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG = "config.json"
FACTS = "denoiser.json"
FILES = (WEIGHTS, CONFIG, FACTS)
"""All that a saved denoiser consists of; whatever else lies in its folder is never read."""
AUTOENCODER = "vae"
AUTOENCODER_FILES = (f"{AUTOENCODER}/{CONFIG}", f"{AUTOENCODER}/{WEIGHTS}")
"""What one that works on latents has too."""
REQUIRED = ("network", "weights_sha256", "config_sha256", "spec")
"""What a denoiser's identity is made of."""
REMEDY = "restore it from where the weights came, or make them again"
_KIND = Kind("a saved denoiser's description", REMEDY, WeightsError, schema=SCHEMA, made="saved", outdated="make it again")
_CONFIG_KIND = Kind("a network's configuration", REMEDY, WeightsError)

Level = Annotated[float, Field(gt=0)]
Shape = tuple[Annotated[int, Field(ge=1)], ...]


class SpecNotes(Notes):
    """What is looked at of a denoiser's spec without torch; `networks.folder` reads all of it."""

    noise_shape: Shape = Field(min_length=1)
    num_conditions: int = Field(ge=1)
    sigma_min: Level
    sigma_max: Level
    sigma_init: Level | None
    guidance: float
    licence: str


class TeacherNotes(Notes):
    """By which teacher a student was distilled."""

    hash: str


class Origin(Notes):
    """Of a network that was another maker's: what it was read from."""

    format: str
    file: str
    sha256: Sha256


class FactNotes(Notes):
    """What `denoiser.json` says: beside the identity, whatever a teacher or a student notes of itself."""

    network: str
    weights_sha256: str
    config_sha256: str
    spec: SpecNotes
    role: str | None = None
    task: str | None = None
    prior: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    classes: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Name of each condition. No part of the identity: other names make no other images."""
    partition_hash: str | None = None
    part: int | None = None
    conditions: tuple[int, ...] = ()
    teacher: TeacherNotes | None = None
    lineage: tuple[str, ...] = ()
    origin: Origin | None = None


def read_facts(folder: str | Path) -> dict[str, Any]:
    """The contents of `denoiser.json`, of our schema and valid as `FactNotes`. Raises WeightsError."""
    folder = checks.path(folder, "a denoiser's folder", error=WeightsError)
    return read_object(folder / FACTS, FactNotes, _KIND)


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
    return read_object(folder / CONFIG, dict[str, Any], _CONFIG_KIND)


def weights_sha256(folder: Path) -> str:
    """Checksum of the weights' file as it is now. Raises WeightsError when there is none."""
    return sha256_file(folder / WEIGHTS, WeightsError)


def identity(facts: dict[str, Any]) -> str:
    """The hash that `denoiser_hash` gives if the folder is as its `facts` say."""
    return sha256_json([facts[name] for name in REQUIRED])


def denoiser_hash(folder: Path) -> str:
    """Identity of a saved denoiser, by content as it is now: weights, configuration, and the way they are used.

    Where the folder lies and what else is noted beside the weights (lineage, quality) do not count. Raises WeightsError.
    """
    content = {"weights_sha256": weights_sha256(folder), "config_sha256": config_sha256(folder)}
    return identity(read_facts(folder) | content)
