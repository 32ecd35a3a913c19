"""A denoiser on disk: a network's folder (as diffusers has it, where it is a network of diffusers) plus `denoiser.json`, so
that nothing else need be told to use it rightly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, create_model

from msd import checks
from msd.diffusion.codec import AffineCodec, FoldedCodec
from msd.diffusion.denoiser import PARAMETERISATIONS, Denoiser, DenoiserSpec
from msd.errors import MsdError, TrainingError, WeightsError
from msd.files import write_json
from msd.networks.adapter import Adapter, adapter_of
from msd.networks.autoencoder import VAECodec, offer, save_autoencoder
from msd.networks.facts import (
    CONFIG,
    FACTS,
    REMEDY,
    SCHEMA,
    WEIGHTS,
    SpecNotes,
    config_sha256,
    read_config,
    verified_facts,
    weights_sha256,
)
from msd.networks.kinds import BUILDERS
from msd.networks.tensors import load_tensors
from msd.reading import Kind, Stored, fitted, reason, validated

CODECS: dict[str, type] = {"affine": AffineCodec, "folded": FoldedCodec, "vae": VAECodec}
"""How each kind of codec is rebuilt from its saved fields."""


def spec_to_json(spec: DenoiserSpec) -> dict[str, Any]:
    """Every field; parameterisation and codec by their kind."""
    return asdict(spec) | {
        "parameterisation": _with_kind(spec.parameterisation, PARAMETERISATIONS),
        "codec": _with_kind(spec.codec, CODECS),
    }


def spec_from_json(value: Any, *, source: str = FACTS) -> DenoiserSpec:
    """Raises WeightsError naming a field of `source` that is unknown, missing or impossible."""
    fields = validated(
        value,
        _model_of(DenoiserSpec, _SpecBase),
        Kind("a denoiser's spec", REMEDY, WeightsError),
        source=f"spec in {source}",
    )
    arguments: dict[str, Any] = {name: getattr(fields, name) for name in type(fields).model_fields}
    for name, kinds in _KINDS.items():
        arguments[name] = _of_kind(arguments[name], kinds, f"{name} in {source}")
    try:
        return DenoiserSpec(**arguments)
    except MsdError as error:
        raise WeightsError(f"{source}: {error} Or {REMEDY}.") from error


def _with_kind(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    names = {kind: name for name, kind in kinds.items()}
    return {"kind": names[type(value)], **asdict(value)}


def _of_kind(value: Mapping[str, Any], kinds: Mapping[str, type], source: str) -> Any:
    arguments = dict(value)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise WeightsError(
            f"{source} has kind {fitted(repr(kind), 40)}, this version knows {', '.join(kinds)}; update msd, or {REMEDY}."
        )
    found = validated(arguments, _model_of(kinds[kind]), Kind(f"of kind {kind}", REMEDY, WeightsError), source=source)
    try:
        return kinds[kind](**dict(found))
    except MsdError as error:
        raise WeightsError(f"{source}: {error}") from error


@cache
def _model_of(kind: type, base: type[BaseModel] = Stored) -> type[BaseModel]:
    """A model with exactly the fields of a dataclass, all of which must be there; `base` may know some more exactly."""
    types = get_type_hints(kind)
    missing = {one.name: (types[one.name], ...) for one in fields(kind) if one.name not in base.model_fields}
    return create_model(kind.__name__, __base__=base, **missing)  # pyright: ignore[reportCallIssue, reportArgumentType]


_KINDS: dict[str, Mapping[str, type]] = {"parameterisation": PARAMETERISATIONS, "codec": CODECS}
"""The fields of a spec that are saved by their kind."""


class _SpecBase(SpecNotes):
    model_config = ConfigDict(extra="forbid")

    parameterisation: dict[str, Any]
    codec: dict[str, Any]


def save_denoiser(denoiser: Denoiser, folder: str | Path, **facts: Any) -> None:
    """Write weights, the network's configuration and `denoiser.json` with `facts` (lineage, partition hash...) added.

    The caller makes it atomic (`files.replacing_folder`). Raises TrainingError, before anything is written, when a weight is
    not finite.
    """
    folder = checks.path(folder, "a denoiser's folder", error=WeightsError)
    network = adapter_of(denoiser)
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise TrainingError(f"{name} is not finite, so nothing was saved; lower the learning rates and train it again.")
    network.save(str(folder))
    if isinstance(denoiser.spec.codec, VAECodec):
        save_autoencoder(denoiser.spec.codec.sha256, folder)
    own = {
        "schema": SCHEMA,
        "network": network.kind,
        "weights_sha256": weights_sha256(folder),
        "config_sha256": config_sha256(folder),
    }
    write_json(folder / FACTS, own | facts | own | {"spec": spec_to_json(denoiser.spec)})


def load_denoiser(folder: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """Load, check against the recorded checksums, and put on `device` in evaluation mode, frozen.

    Raises WeightsError, and RunError for a device that is not there, before anything is read.
    """
    device, folder = checks.device(device), checks.path(folder, "a denoiser's folder", error=WeightsError)
    facts = verified_facts(folder)
    kind = facts["network"]
    if kind not in BUILDERS:
        raise WeightsError(f"{folder} holds a network of kind {kind!r}, which this version cannot load; update msd.")
    spec = spec_from_json(facts["spec"], source=str(folder / FACTS))
    config = {key: value for key, value in read_config(folder).items() if not key.startswith("_")}
    try:
        # Built with throw-away weights, which must not cost the caller's random stream anything.
        with torch.random.fork_rng(devices=[]):
            network = BUILDERS[kind](config)
    except Exception as error:  # whatever diffusers makes of values that nobody has foreseen
        why = reason(error)
        raise WeightsError(f"{folder / CONFIG} describes no network that can be built ({why}); {REMEDY}.") from error
    load_strictly(network, folder / WEIGHTS)
    if isinstance(spec.codec, VAECodec):
        offer(spec.codec.sha256, folder)
    return Denoiser(network, spec).to(device).eval().requires_grad_(False)


def load_strictly(network: Adapter, path: Path) -> None:
    """Fill every tensor of `network` from the one file at `path`. Raises WeightsError naming the first that does not fit."""
    tensors = load_tensors(path, REMEDY)
    wanted = network.model.state_dict()
    why = f"{path} and {CONFIG} do not belong together"
    for name in sorted(wanted.keys() - tensors.keys()):
        raise WeightsError(f"{why}: the tensor {name} is missing; {REMEDY}.")
    for name in sorted(tensors.keys() - wanted.keys()):
        raise WeightsError(f"{why}: the network has no tensor {name}; {REMEDY}.")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(value.shape)}"
            raise WeightsError(f"{why}: the tensor {name} has shape {shapes}; {REMEDY}.")
    network.model.load_state_dict(tensors, strict=True)
