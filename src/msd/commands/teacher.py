"""`msd teacher`: what a teacher is, the same as a folder of ours, and what it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from msd import checks
from msd.commands.console import Output
from msd.commands.sample import write_grid
from msd.commands.targets import check_denoiser, check_file, is_samples
from msd.conditions.names import numbered, with_numbers
from msd.diffusion.denoiser import PARAMETERISATIONS, DenoiserSpec
from msd.diffusion.draw import image_noise
from msd.errors import ConditionError, PartitionError, RecipeError, RunError
from msd.evaluation.samplers import named_solver, teacher_sampler
from msd.networks.anatomies import DIT, NULL_LABELS, SONG, UNET
from msd.networks.facts import REMEDY, WEIGHTS, FactNotes, identity, read_config, verified_facts
from msd.networks.folder import CODECS, spec_from_json
from msd.networks.song_config import SongConfig
from msd.networks.tensors import num_values
from msd.teachers.converted import convert as convert_file
from msd.teachers.converted import is_foreign, read_foreign
from msd.teachers.facts import teacher_folder
from msd.teachers.folder import load_teacher
from msd.teachers.foreign import Foreign
from msd.teachers.hub import located

FOLDER_FORMAT = "denoiser folder"
BATCH_SIZE = 64
"""Images that are sampled at a time."""


def inspect(source: str, output: Output) -> dict[str, Any]:
    """What is known of a teacher, shown as a table. Raises WeightsError for what is none."""
    value = _of_foreign(source) if is_foreign(located(source)) else _of_folder(source)
    output.show(_table(value))
    return value


def convert(source: str, folder: Path, licence: str | None, output: Output) -> dict[str, Any]:
    """The network in a file as a denoiser's folder. Raises WeightsError, and RunError for a folder that is not ours to
    write."""
    check_denoiser(folder)
    path = located(source)
    if not is_foreign(path):
        what = "is a teacher's folder already, which needs no conversion" if path.is_dir() else "is not there"
        raise RunError(f"{path} {what}; give a checkpoint, or a folder of diffusers'.")
    found = convert_file(path, folder, licence)
    for doubt in found.doubts:
        output.say(f"{source}: {doubt}.")
    return _of(found, str(folder)) | {"format": FOLDER_FORMAT}


def sample(
    source: str,
    labels: Sequence[str] | None,
    num: int,
    solver_word: str,
    seed: int,
    guidance: float | None,
    device: str,
    out: Path,
    output: Output,
) -> dict[str, Any]:
    """A grid of the teacher's images, a row a class. Raises ConditionError for an unknown class."""
    if out.suffix != ".png":
        raise RunError(f"{out} does not end in .png; choose such a name with --out.")
    check_file(out, is_samples, "samples")
    teacher = load_teacher(source, device, guidance)
    try:
        solver = named_solver(solver_word, teacher.denoiser.spec)
    except ValueError as error:
        raise RecipeError(f"--solver: {error}.") from error
    classes = teacher.facts.classes
    if labels is None:
        chosen = list(range(len(classes)))
    else:
        chosen = checks.class_numbers(with_numbers(list(labels), classes), len(classes), error=PartitionError).tolist()
    keys = torch.tensor(chosen).repeat_interleave(num)
    # The solver's state is in float64, and there are a few of it.
    each = 10 * 4 * math.prod(teacher.denoiser.spec.noise_shape)
    checks.fits_memory(len(keys), each, "images", "ask for fewer with --num", error=ConditionError)
    seeds = range(seed, seed + len(keys))
    sampler = teacher_sampler(teacher.denoiser, solver)
    with output.progress("sampling", len(keys)) as advance:
        noise = image_noise(seeds, teacher.denoiser.spec.noise_shape)
        images = sampler.in_batches(noise, keys, seeds, BATCH_SIZE, advance)
    write_grid(out, images, chosen, classes)
    evaluations = sampler.num_function_evaluations
    return {"out": str(out), "num_images": len(images), "solver": solver.name, "evaluations": evaluations, "seed": seed}


def _of_foreign(source: str) -> dict[str, Any]:
    path = located(source)
    found = read_foreign(path)
    found.denoiser(path)  # its weights are all there, and fit
    return _of(found, source) | {"loaded_as": "a teacher's folder, into which it is converted once, in the cache"}


def _of(found: Foreign, source: str) -> dict[str, Any]:
    value = _described(source, found.format, found.kind, found.config, found.spec, found.num_parameters)
    classes = found.classes or numbered(found.spec.num_conditions)
    return value | {"classes": list(classes), "doubts": list(found.doubts)}


def _of_folder(source: str) -> dict[str, Any]:
    folder = teacher_folder(source)
    facts = verified_facts(folder)
    known = FactNotes.model_validate(facts)
    spec = spec_from_json(facts["spec"], source=str(folder))
    size = num_values(folder / WEIGHTS, REMEDY)
    value = _described(source, FOLDER_FORMAT, known.network, read_config(folder), spec, size)
    doubts = [] if spec.sigma_init is None else ["it is a one-step student, which cannot teach"]
    return value | {
        "classes": list(known.classes or numbered(spec.num_conditions)),
        "hash": identity(facts),
        "origin": known.origin.model_dump() if known.origin else None,
        "doubts": doubts,
        "loaded_as": "it is, its checksums verified",
    }


def _described(
    source: str, found_as: str, kind: str, config: Mapping[str, Any], spec: DenoiserSpec, num_parameters: int
) -> dict[str, Any]:
    names = {one: name for name, one in PARAMETERISATIONS.items()}
    codecs = {one: name for name, one in CODECS.items()}
    return {
        "source": source,
        "format": found_as,
        "network": NETWORKS[kind](config),
        "num_parameters": num_parameters,
        "num_conditions": spec.num_conditions,
        "noise_shape": list(spec.noise_shape),
        "pixel_shape": list(spec.pixel_shape),
        "sigma_min": spec.sigma_min,
        "sigma_max": spec.sigma_max,
        "parameterisation": {"kind": names[type(spec.parameterisation)], **asdict(spec.parameterisation)},
        "codec": {"kind": codecs[type(spec.codec)], **asdict(spec.codec)},
        "null_label": config.get(NULL_LABELS.get(kind, "")),
        "guidance": spec.guidance,
        "licence": spec.licence,
    }


def _unet(config: Mapping[str, Any]) -> str:
    widths, size = config.get("block_out_channels") or (), config.get("sample_size")
    kinds = config.get("down_block_types") or ()
    num_blocks = config.get("layers_per_block")
    blocks = "1 block" if num_blocks == 1 else f"{num_blocks} blocks"
    text = f"UNet2DModel, {'-'.join(map(str, widths))} channels, {blocks} a level"
    attended = [str(size >> level) for level, kind in enumerate(kinds) if "Attn" in kind and isinstance(size, int)]
    return f"{text}, attention at {', '.join(attended)}" if attended else text


def _dit(config: Mapping[str, Any]) -> str:
    heads, width, patch = (config.get(key) for key in ("num_attention_heads", "attention_head_dim", "patch_size"))
    text = f"DiTTransformer2DModel, {config.get('num_layers')} blocks of {heads} heads of {width} channels"
    return f"{text}, patches of {patch}x{patch}"


NETWORKS = {UNET: _unet, DIT: _dit, SONG: lambda config: str(SongConfig.read(config))}
"""By its kind, how a network is described."""


def _table(value: Mapping[str, Any]) -> Table:
    table = Table(title=value["source"], show_header=False, title_style="")
    told = dict(value["parameterisation"])
    kind = told.pop("kind")
    own = ", ".join(f"{name} {one}" for name, one in told.items() if isinstance(one, int | float | str))
    shape = "x".join(map(str, value["pixel_shape"]))
    lines = {
        "format": value["format"],
        "network": value["network"],
        "parameters": f"{value['num_parameters']:,}",
        "conditions": f"{value['num_conditions']:,} classes" + _names(value.get("classes") or ()),
        "images": f"{shape} pixels",
        "noise levels": f"{value['sigma_min']:g} to {value['sigma_max']:g}",
        "parameterisation": f"{kind} ({own})" if own else kind,
        "licence": value["licence"],
        "loaded as": value["loaded_as"],
    }
    if value["codec"]["kind"] == "vae":
        latents = "x".join(map(str, value["noise_shape"]))
        lines["latents"] = f"{latents}, of an AutoencoderKL, scaled by {value['codec']['scale']:g}"
    if value["null_label"] is not None:
        lines["no class"] = f"label {value['null_label']}, so it can be guided (teacher.guidance)"
    if value["guidance"] != 1:
        lines["guidance"] = f"{value['guidance']:g}"
    if origin := value.get("origin"):
        lines["made from"] = f"{origin['file']} ({origin['format']}, SHA-256 {origin['sha256'][:16]}...)"
    for name, text in lines.items():
        table.add_row(name, text)
    for doubt in value["doubts"]:
        table.add_row("doubt", doubt)
    return table


def _names(classes: Sequence[str]) -> str:
    if tuple(classes) == numbered(len(classes)):
        return ""
    shown = ", ".join(classes[:6])
    return f": {shown}" + (", ..." if len(classes) > 6 else "")
