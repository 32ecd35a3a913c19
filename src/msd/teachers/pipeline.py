"""diffusers' folders: a pipeline (`model_index.json`) or a model alone with a scheduler's configuration beside it."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msd.checks import shown
from msd.conditions.names import printable
from msd.diffusion.codec import AffineCodec, Codec
from msd.diffusion.denoiser import DenoiserSpec
from msd.errors import WeightsError
from msd.networks.build import LabelledUNet
from msd.networks.dit import LabelledDiT
from msd.networks.facts import AUTOENCODER, CONFIG
from msd.reading import Kind, fitted, read_object
from msd.teachers.autoencoder import CLASS as AUTOENCODER_CLASS
from msd.teachers.autoencoder import foreign_autoencoder
from msd.teachers.foreign import Foreign
from msd.teachers.model_weights import read_weights, weight_files
from msd.teachers.schedules import read_schedule

INDEX, SCHEDULER_CONFIG, CARD = "model_index.json", "scheduler_config.json", "README.md"
SCHEDULER = "scheduler"
"""The name of that part of a pipeline."""
REMEDY = "give a pipeline of a class-conditional UNet2DModel or DiTTransformer2DModel, or such a model's folder"
_KIND = Kind("a description of diffusers'", REMEDY, WeightsError)
NO_LICENCE = "not stated"
LEGACY = "Transformer2DModel"
"""What a DiT was called before it had a class of its own; its configuration has keys of other transformers too."""
HARMLESS = ("safety_checker", "feature_extractor", "image_processor", "watermark")
"""Parts of pipelines that take no part in making an image."""


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a pipeline lie."""

    network: Path
    scheduler: Path
    autoencoder: Path | None
    index: Mapping[str, Any]


def is_pipeline(folder: Path) -> bool:
    """Whether a folder looks like one of diffusers'."""
    return (folder / INDEX).is_file() or (folder / CONFIG).is_file()


def pipeline_files(folder: Path) -> list[Path]:
    """All files that `read_pipeline` reads of a folder. Raises WeightsError as that does."""
    layout = _layout(folder)
    parts = [layout.network] if layout.autoencoder is None else [layout.network, layout.autoencoder]
    found = [layout.scheduler, *(folder / name for name in (INDEX, CARD) if (folder / name).is_file())]
    for part in parts:
        found += [part / CONFIG, *weight_files(part)]
    return found


def read_pipeline(folder: Path) -> Foreign:
    """The network of a pipeline, or of a model's folder, with what its scheduler and its autoencoder say of its use.

    Raises WeightsError for whatever is not understood, naming it: nothing is guessed.
    """
    layout = _layout(folder)
    config = read_object(layout.network / CONFIG, dict[str, Any], _KIND)
    name = _class_of(config, layout.network)
    reader = NETWORKS.get(name)
    if reader is None:
        raise WeightsError(f"{layout.network} holds a {shown(name)}, which cannot be a teacher yet; {REMEDY}.")
    found = reader(config, layout.network)
    schedule = read_schedule(read_object(layout.scheduler, dict[str, Any], _KIND), str(layout.scheduler))
    _check_answer(found, schedule.learned_variance, layout.network)
    codec: Codec = AffineCodec()
    autoencoder = None
    if layout.autoencoder is not None:
        autoencoder, codec = foreign_autoencoder(layout.autoencoder)
        if codec.channels != found.channels:
            raise WeightsError(
                f"{layout.autoencoder} has {codec.channels} latent channels and {layout.network} takes {found.channels}; "
                "they do not belong together."
            )
    spec = DenoiserSpec(
        noise_shape=(found.channels, found.size, found.size),
        num_conditions=found.num_conditions,
        parameterisation=schedule.parameterisation,
        codec=codec,
        sigma_min=schedule.sigma_min,
        sigma_max=schedule.sigma_max,
        licence=_licence(folder),
    )
    doubts = list(schedule.doubts)
    if found.answers != found.channels:
        doubts.append("half of what its network answers is a variance, which is dropped")
    if found.num_conditions == 1:
        doubts.append("it is unconditional: there are no conditions to divide, so it has one student")
    if spec.licence == NO_LICENCE:
        doubts.append(f"no licence is named in a {CARD} beside it; convert it with --licence to note one")
    classes = _names(layout.index.get("id2label"), found.num_conditions, folder)
    tensors = read_weights(layout.network)
    return Foreign("diffusers folder", found.kind, found.config, tensors, spec, tuple(doubts), classes, autoencoder)


@dataclass(frozen=True)
class _Network:
    """A network's configuration, and the facts in it that its use depends on."""

    kind: str
    config: Mapping[str, Any]
    channels: int
    answers: int
    """Channels that it answers with."""
    size: int
    num_conditions: int


def _unet(config: Mapping[str, Any], folder: Path) -> _Network:
    from diffusers.models.unets.unet_2d import UNet2DModel

    own = _arguments(config, UNet2DModel, folder)
    if kind := own.get("class_embed_type"):
        raise _wrong(folder, "class_embed_type", kind, "null: only tables of classes are known")
    if own["time_embedding_type"] != "positional":
        raise _wrong(folder, "time_embedding_type", own["time_embedding_type"], "positional, the one that is known")
    num = own.get("num_class_embeds")
    num_conditions = 1 if num is None else _whole(num, "num_class_embeds", folder)
    channels, answers = (
        _whole(own["in_channels"], "in_channels", folder),
        _whole(own["out_channels"], "out_channels", folder),
    )
    return _Network(LabelledUNet.kind, own, channels, answers, _size(own, folder), num_conditions)


def _dit(config: Mapping[str, Any], folder: Path) -> _Network:
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    if config.get("_class_name") == LEGACY:
        if config.get("norm_type") != "ada_norm_zero" or not config.get("patch_size"):
            raise WeightsError(f"{folder} holds a {LEGACY} that is no DiT (norm_type ada_norm_zero, patches); {REMEDY}.")
        extra = _argument_names(Transformer2DModel) - _argument_names(DiTTransformer2DModel)
        # Of the keys of other transformers only those that ask for nothing.
        config = {key: value for key, value in config.items() if not (key in extra and not value)}
    own = _arguments(config, DiTTransformer2DModel, folder)
    channels = _whole(own["in_channels"], "in_channels", folder)
    answers = _whole(channels if own["out_channels"] is None else own["out_channels"], "out_channels", folder)
    num_conditions = _whole(own["num_embeds_ada_norm"], "num_embeds_ada_norm", folder)
    size, patch = _size(own, folder), _whole(own["patch_size"], "patch_size", folder)
    if size % patch:
        raise _wrong(folder, "patch_size", patch, f"one that divides sample_size {size}")
    return _Network(LabelledDiT.kind, own, channels, answers, size, num_conditions)


NETWORKS: dict[str, Callable[[Mapping[str, Any], Path], _Network]] = {
    "UNet2DModel": _unet,
    "DiTTransformer2DModel": _dit,
    LEGACY: _dit,
}
"""By its class in diffusers, how a network's configuration is read."""


def _layout(folder: Path) -> _Layout:
    if not (folder / INDEX).is_file():
        places = [
            folder / SCHEDULER_CONFIG,
            folder / SCHEDULER / SCHEDULER_CONFIG,
            folder.parent / SCHEDULER / SCHEDULER_CONFIG,
        ]
        scheduler = next((place for place in places if place.is_file()), None)
        if scheduler is None:
            raise WeightsError(
                f"{folder} has no {SCHEDULER_CONFIG}, which says how its network is to be asked; put the one that it was "
                "trained with beside it."
            )
        autoencoder = folder / AUTOENCODER
        return _Layout(folder, scheduler, autoencoder if autoencoder.is_dir() else None, {})
    index = read_object(folder / INDEX, dict[str, Any], _KIND)
    parts = dict(_parts(index))
    networks = [part for part, name in parts.items() if name in NETWORKS]
    kept = {*networks, SCHEDULER, *HARMLESS}
    autoencoder = AUTOENCODER if parts.get(AUTOENCODER) == AUTOENCODER_CLASS else None
    odd = [f"{part} ({name})" for part, name in parts.items() if part not in kept and part != autoencoder]
    if odd or len(networks) != 1:
        what = (
            f"parts that are not known: {', '.join(odd)}" if odd else f"{len(networks)} networks that could be the teacher"
        )
        raise WeightsError(f"{folder} is a {shown(index.get('_class_name'))} with {fitted(what, 200)}; {REMEDY}.")
    scheduler = folder / SCHEDULER / SCHEDULER_CONFIG
    for place in (scheduler, folder / networks[0] / CONFIG):
        if not place.is_file():
            raise WeightsError(f"{folder} lacks {place.relative_to(folder)}; download the whole folder again.")
    return _Layout(folder / networks[0], scheduler, folder / autoencoder if autoencoder else None, index)


def _parts(index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and class of a pipeline's parts."""
    for part, value in index.items():
        is_part = isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value)
        if is_part and re.fullmatch(r"\w+", part):
            yield part, value[1]


def _class_of(config: Mapping[str, Any], folder: Path) -> str:
    name = config.get("_class_name")
    if not isinstance(name, str):
        raise WeightsError(f"{folder / CONFIG} does not say of which class its network is (_class_name); {REMEDY}.")
    return name


def _argument_names(network: type) -> set[str]:
    return set(inspect.signature(network.__init__).parameters) - {"self"}


def _arguments(config: Mapping[str, Any], network: type, folder: Path) -> dict[str, Any]:
    """The keyword arguments of a diffusers class that its configuration stands for, every default filled in."""
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if odd := sorted(given.keys() - _argument_names(network)):
        raise WeightsError(
            f"{folder / CONFIG} has {shown(odd[0])}, which a {network.__name__} of this diffusers does not know; update "
            "diffusers, or give the configuration as it was published."
        )
    parameters = inspect.signature(network.__init__).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in (defaults | given).items()}


def _size(config: Mapping[str, Any], folder: Path) -> int:
    value = config.get("sample_size")
    sides = set(value) if isinstance(value, list) else {value}
    if len(sides) != 1:
        raise _wrong(folder, "sample_size", value, "one number: only square samples are known")
    return _whole(sides.pop(), "sample_size", folder)


def _whole(value: Any, name: str, folder: Path) -> int:
    if type(value) is not int or not 1 <= value <= 2**20:
        raise _wrong(folder, name, value, "a whole number above 0")
    return value


def _check_answer(found: _Network, learned: bool, folder: Path) -> None:
    """Raises WeightsError for a network that answers with other channels than its samples', a variance aside."""
    if found.answers not in (found.channels, 2 * found.channels):
        wanted = f"{found.channels}, or {2 * found.channels} with a learned variance"
        raise _wrong(folder, "out_channels", found.answers, wanted)
    if learned and found.answers == found.channels:
        raise WeightsError(
            f"{folder} answers with {found.channels} channels, where its scheduler says that half is a variance."
        )


def _names(value: Any, num: int, folder: Path) -> tuple[str, ...]:
    """The first name that a pipeline gives each class; two of one name get their numbers. Raises WeightsError."""
    if value is None:
        return ()
    names = [value.get(str(number)) for number in range(num)] if isinstance(value, dict) else []
    if len(names) != num or not all(isinstance(name, str) and printable(name) for name in names):
        raise WeightsError(
            f"{folder / INDEX} has id2label that does not name classes 0 to {num - 1}; mend it, or leave it out."
        )
    first = [printable(str(name)).split(",")[0].strip() or str(number) for number, name in enumerate(names)]
    return _distinct(first)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} {number}" for number, name in enumerate(names))


def _licence(folder: Path) -> str:
    """What the model card beside the weights says, in its front matter."""
    try:
        with (folder / CARD).open(encoding="utf-8", errors="replace") as stream:
            head = stream.read(20_000)
    except OSError:
        return NO_LICENCE
    matter = re.match(r"---\s*\n(.*?)\n---", head, re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.+-]{1,60})", matter[1], re.MULTILINE) if matter else None
    return found[1] if found else NO_LICENCE


def _wrong(folder: Path, name: str, value: Any, wanted: str) -> WeightsError:
    return WeightsError(f"{folder / CONFIG}: {name} is {shown(value)}, not {wanted}; {REMEDY}.")
