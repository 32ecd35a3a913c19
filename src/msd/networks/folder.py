"""A denoiser on disk: a diffusers model folder plus `denoiser.json`, so that nothing else need be told to use it rightly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from msd import checks
from msd.diffusion.codec import CODECS
from msd.diffusion.denoiser import PARAMETERISATIONS, Denoiser, DenoiserSpec
from msd.errors import MsdError, TrainingError, WeightsError
from msd.files import check_fields, write_json
from msd.networks.build import LabelledUNet, build_unet, unet_of
from msd.networks.facts import (
    CONFIG,
    FACTS,
    SCHEMA,
    WEIGHTS,
    config_sha256,
    read_config,
    verified_facts,
    weights_sha256,
)

BUILDERS: dict[str, Callable[[dict[str, Any]], LabelledUNet]] = {LabelledUNet.kind: build_unet}
"""How each kind of network is built from its configuration; a new kind is a line here."""
_REMEDY = "restore it from where the weights came, or make them again"


def spec_to_json(spec: DenoiserSpec) -> dict[str, Any]:
    """Every field; parameterisation and codec by their kind."""
    return asdict(spec) | {
        "parameterisation": _with_kind(spec.parameterisation, PARAMETERISATIONS),
        "codec": _with_kind(spec.codec, CODECS),
    }


def spec_from_json(value: Any, *, source: str = FACTS) -> DenoiserSpec:
    """Raises WeightsError naming a field of `source` that is unknown, missing or impossible."""
    arguments = dict(_exactly(value, DenoiserSpec, f"spec in {source}"))
    arguments["parameterisation"] = _of_kind(
        arguments["parameterisation"], PARAMETERISATIONS, f"parameterisation in {source}"
    )
    arguments["codec"] = _of_kind(arguments["codec"], CODECS, f"codec in {source}")
    try:
        return DenoiserSpec(**arguments)
    except MsdError as error:
        raise WeightsError(f"{source}: {error} Or {_REMEDY}.") from error


def _with_kind(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    names = {kind: name for name, kind in kinds.items()}
    return {"kind": names[type(value)], **asdict(value)}


def _of_kind(value: Any, kinds: Mapping[str, type], source: str) -> Any:
    arguments = dict(value) if isinstance(value, dict) else {}
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise WeightsError(f"{source} has kind {kind!r}, this version knows {', '.join(kinds)}; update msd, or {_REMEDY}.")
    _exactly(arguments, kinds[kind], source)
    try:
        return kinds[kind](**{name: tuple(item) if isinstance(item, list) else item for name, item in arguments.items()})
    except MsdError as error:
        raise WeightsError(f"{source}: {error}") from error


def _exactly(value: Any, kind: type, source: str) -> dict[str, Any]:
    return check_fields(value, [field.name for field in fields(kind)], source=source, remedy=_REMEDY, error=WeightsError)


def save_denoiser(denoiser: Denoiser, folder: str | Path, **facts: Any) -> None:
    """Write weights, the network's configuration and `denoiser.json` with `facts` (lineage, partition hash...) added.

    The caller makes it atomic (`files.replacing_folder`). Raises TrainingError, before anything is written, when a weight is
    not finite.
    """
    folder = checks.path(folder, "a denoiser's folder", error=WeightsError)
    network = unet_of(denoiser)
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise TrainingError(f"{name} is not finite, so nothing was saved; lower the learning rates and train it again.")
    network.save(str(folder))
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
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder / CONFIG} describes no network that can be built ({error}); {_REMEDY}.") from error
    load_strictly(network, folder / WEIGHTS)
    return Denoiser(network, spec).to(device).eval().requires_grad_(False)


def load_strictly(network: LabelledUNet, path: Path) -> None:
    """Fill every tensor of `network` from the one file at `path`. Raises WeightsError naming the first that does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}); restore it, or make the model again.") from error
    wanted = network.model.state_dict()
    why = f"{path} and {CONFIG} do not belong together"
    for name in sorted(wanted.keys() - tensors.keys()):
        raise WeightsError(f"{why}: the tensor {name} is missing; {_REMEDY}.")
    for name in sorted(tensors.keys() - wanted.keys()):
        raise WeightsError(f"{why}: the network has no tensor {name}; {_REMEDY}.")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(value.shape)}"
            raise WeightsError(f"{why}: the tensor {name} has shape {shapes}; {_REMEDY}.")
    network.model.load_state_dict(tensors, strict=True)
