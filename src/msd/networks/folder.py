"""A denoiser on disk: a diffusers model folder plus `denoiser.json`, so that nothing else need be told to use it rightly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from msd.diffusion.denoiser import PARAMETERISATIONS, Denoiser, DenoiserSpec, PixelScaling
from msd.errors import WeightsError
from msd.files import read_json, sha256_bytes, sha256_file, write_json
from msd.networks.build import LabelledUNet, load_unet, unet_of

SCHEMA = 1
WEIGHTS = "diffusion_pytorch_model.safetensors"
LOADERS: dict[str, Callable[[str], LabelledUNet]] = {"unet2d": load_unet}
"""How each kind of network is read back; a new kind is a line here."""


def spec_to_json(spec: DenoiserSpec) -> dict[str, Any]:
    kinds = {kind: name for name, kind in PARAMETERISATIONS.items()}
    return asdict(spec) | {"parameterisation": {"kind": kinds[type(spec.parameterisation)], **asdict(spec.parameterisation)}}


def spec_from_json(value: dict[str, Any]) -> DenoiserSpec:
    """Raises WeightsError when a field is unknown or missing."""
    known = {field.name for field in fields(DenoiserSpec)}
    try:
        arguments = {name: value[name] for name in known & value.keys()}
        parameterisation = dict(arguments["parameterisation"])
        arguments["parameterisation"] = PARAMETERISATIONS[parameterisation.pop("kind")](**parameterisation)
        arguments["scaling"] = PixelScaling(**arguments["scaling"])
        arguments["sample_shape"] = tuple(arguments["sample_shape"])
        return DenoiserSpec(**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"denoiser.json lacks or misspells {error}; restore it from where the weights came.") from error


def save_denoiser(denoiser: Denoiser, folder: Path, **facts: Any) -> None:
    """Write weights, the network's configuration and `denoiser.json` with `facts` (lineage, partition hash...) added.

    The caller makes it atomic (`files.replacing_folder`).
    """
    network = unet_of(denoiser)
    network.save(str(folder))
    facts = {"schema": SCHEMA, "network": network.kind, "weights_sha256": sha256_file(folder / WEIGHTS), **facts}
    write_json(folder / "denoiser.json", facts | {"spec": spec_to_json(denoiser.spec)})


def read_facts(folder: Path) -> dict[str, Any]:
    """The contents of `denoiser.json`. Raises WeightsError."""
    return read_json(folder / "denoiser.json", what="a saved denoiser's description", error=WeightsError)


def load_denoiser(folder: Path, device: torch.device | str = "cpu") -> Denoiser:
    """Load, check against the recorded checksum, and put on `device` in evaluation mode, frozen. Raises WeightsError."""
    facts = read_facts(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise WeightsError(f"{weights} does not exist; restore it, or make the model again.")
    if sha256_file(weights) != facts.get("weights_sha256"):
        raise WeightsError(f"{weights} is damaged: its checksum is not the recorded one; restore it, or make it again.")
    kind = facts.get("network")
    if kind not in LOADERS:
        raise WeightsError(f"{folder} holds a network of kind {kind!r}, which this version cannot load; update msd.")
    try:
        network = LOADERS[kind](str(folder))
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder} cannot be loaded ({error}); restore it, or make it again.") from error
    denoiser = Denoiser(network, spec_from_json(facts["spec"]))
    return denoiser.to(device).eval().requires_grad_(False)


def denoiser_hash(folder: Path) -> str:
    """Identity of a saved denoiser: its weights and the way they are used."""
    facts = read_facts(folder)
    identity = json.dumps([facts["weights_sha256"], facts["spec"]], sort_keys=True)
    return sha256_bytes(identity.encode())
