"""EDM's checkpoints (Karras et al. 2022, arXiv 2206.00364): the pickled network read as data, as one of our own kinds.

Its ADM U-Net is a UNet2DModel, which is spelt out here; of DDPM++ and NCSN++ see `edm_song`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from msd.diffusion.denoiser import DenoiserSpec, EDMParameterisation
from msd.errors import WeightsError
from msd.networks.build import LabelledUNet
from msd.networks.song import SongAdapter
from msd.reading import fitted
from msd.teachers.edm_song import read_song, song_tensors
from msd.teachers.foreign import Foreign
from msd.teachers.records import Record, read_records

REMEDY = "give a checkpoint of EDM's, e.g. edm-imagenet-64x64-cond-adm.pkl"
ADM, SONG = "DhariwalUNet", "SongUNet"
"""The networks that are known, as the files call them."""
MAX_BLOCKS = 64
"""More a level than any network has: a larger number in a file would take memory before its weights are looked at."""
LICENCE = "CC BY-NC-SA 4.0"
"""Of the weights that NVIDIA published with EDM."""
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
"""The noise levels of EDM's samplers, within those that the network allows."""
GROUPS, HEAD_DIM = 32, 64
"""EDM's norms have 32 groups unless that leaves fewer than 4 channels each; its attention has heads of 64 channels."""
NETWORK_DEFAULTS: dict[str, Any] = {
    "model_channels": 192,
    "channel_mult": [1, 2, 3, 4],
    "channel_mult_emb": 4,
    "num_blocks": 3,
    "attn_resolutions": [32, 16, 8],
    "dropout": 0.10,
    "augment_dim": 0,
}
"""The arguments of `DhariwalUNet` (ADM) that a file may leave out."""


def read_edm(path: Path) -> Foreign:
    """The network in an EDM pickle, as published: a dictionary with the averaged one as `ema`, an `EDMPrecond` over a
    `DhariwalUNet`. No code of the file is run (`records`).

    Raises WeightsError for anything else, naming what it found.
    """
    content = read_records(path, REMEDY)
    found = content.get("ema") if isinstance(content, Mapping) else content
    if not isinstance(found, Record):
        holds = f"a {type(content).__name__}" if not isinstance(content, Mapping) else _keys(content)
        raise WeightsError(f"{path} holds no network of EDM's under 'ema' (it holds {holds}); {REMEDY}.")
    if found.kind != "EDMPrecond":
        raise WeightsError(f"{path} holds a {_shown(found.kind)}; only EDM's own preconditioning is known, {REMEDY}.")
    network = found.modules().get("model")
    if network is None or network.kind not in (ADM, SONG):
        what = "no network" if network is None else f"a {_shown(network.kind)}"
        raise WeightsError(f"{path} holds {what} in its EDMPrecond; of EDM's networks {ADM} and {SONG} are known.")
    facts = _Facts(path, found.state, network.arguments())
    size, channels, labels = facts.outside()
    if network.kind == SONG:
        song = read_song(path, found.state, network.arguments())
        kind, config = SongAdapter.kind, song.to_json()
        tensors = dict(song_tensors(path, network.tensors(), song))
    else:
        kind, config = LabelledUNet.kind, facts.config()
        tensors = dict(_renamed(network.tensors(), config, path))
    spec = DenoiserSpec(
        noise_shape=(channels, size, size),
        num_conditions=labels,
        parameterisation=EDMParameterisation(facts.number("sigma_data", 0.5)),
        sigma_min=max(SIGMA_MIN, facts.number("sigma_min", 0.0)),
        sigma_max=min(SIGMA_MAX, facts.number("sigma_max", SIGMA_MAX)),
        licence=LICENCE,
    )
    doubts = [f"its licence is taken to be that of NVIDIA's EDM weights, {LICENCE}; for others convert it with --licence"]
    if facts.arguments["augment_dim"]:
        doubts.append("it was trained with augmentation labels; they are left out, which asks for images as they are")
    return Foreign("EDM pickle", kind, config, tensors, spec, tuple(doubts))


class _Facts:
    """What a file says of its network, each value checked where it is asked for."""

    def __init__(self, path: Path, state: Mapping[str, Any], arguments: Mapping[str, Any]):
        self._path, self._state, self.arguments = path, state, NETWORK_DEFAULTS | dict(arguments)

    def outside(self) -> tuple[int, int, int]:
        """Pixels a side, channels and classes of what the network makes. Raises WeightsError where it has no classes."""
        if self._state.get("label_dim") == 0:
            raise WeightsError(
                f"{self._path} is unconditional (label_dim 0), so there are no conditions to divide among students; give a "
                "class-conditional checkpoint."
            )
        size, channels = self._whole("img_resolution", self._state), self._whole("img_channels", self._state)
        return size, channels, self._whole("label_dim", self._state)

    def number(self, name: str, default: float) -> float:
        value = self._state.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise self._wrong(name, value, "a number")
        return float(value)

    def config(self) -> dict[str, Any]:
        """The keyword arguments of the UNet2DModel that computes the same. Raises WeightsError where none does."""
        size, channels, num_classes = self.outside()
        num_blocks = self._whole("num_blocks")
        if num_blocks > MAX_BLOCKS:
            raise self._wrong("num_blocks", num_blocks, f"a whole number up to {MAX_BLOCKS}")
        base, mults = self._whole("model_channels"), self._wholes("channel_mult")
        emb, attended = self._whole("channel_mult_emb"), self._wholes("attn_resolutions")
        widths = [base * mult for mult in mults]
        if mults[:1] != [1]:
            raise self._wrong("channel_mult", mults, "a list that begins with 1, as a UNet2DModel's does")
        if odd := next((width for width in widths if width % GROUPS or width < 4 * GROUPS), None):
            raise WeightsError(
                f"{self._path} has a level of {odd} channels, whose norms have other groups than a UNet2DModel's; only "
                f"widths from {4 * GROUPS} that {GROUPS} divides can be had exactly."
            )
        if size % 2 ** (len(widths) - 1):
            raise self._wrong("img_resolution", size, f"a size that can be halved {len(widths) - 1} times")
        attends = [size >> level in attended for level in range(len(widths))]
        uneven = [width for width, one in zip(widths, attends, strict=True) if one and width % HEAD_DIM]
        if uneven or widths[-1] % HEAD_DIM:
            raise WeightsError(
                f"{self._path} attends over {(uneven or widths[-1:])[0]} channels, which do not make heads of {HEAD_DIM}; "
                "only such can be had exactly."
            )
        down = ["AttnDownBlock2D" if one else "ResnetDownsampleBlock2D" for one in attends]
        up = ["AttnUpBlock2D" if one else "ResnetUpsampleBlock2D" for one in reversed(attends)]
        return {
            "sample_size": size,
            "in_channels": channels,
            "out_channels": channels,
            "num_class_embeds": num_classes,
            "block_out_channels": widths,
            "layers_per_block": num_blocks,
            "time_embedding_dim": base * emb,
            "dropout": self._share("dropout"),
            "norm_num_groups": GROUPS,
            "attn_norm_num_groups": GROUPS,
            "attention_head_dim": HEAD_DIM,
            "norm_eps": 1e-5,
            "freq_shift": 0,
            "flip_sin_to_cos": True,
            "resnet_time_scale_shift": "scale_shift",
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "down_block_types": down,
            "up_block_types": up,
        }

    def _whole(self, name: str, place: Mapping[str, Any] | None = None) -> int:
        value = (self.arguments if place is None else place).get(name)
        if type(value) is not int or not 1 <= value <= 2**20:
            raise self._wrong(name, value, "a whole number above 0")
        return value

    def _wholes(self, name: str) -> list[int]:
        value: Any = self.arguments.get(name)
        is_list = isinstance(value, list | tuple) and len(value) <= 16
        if not is_list or not all(type(one) is int and 1 <= one <= 2**20 for one in value):
            raise self._wrong(name, value, "a list of whole numbers above 0")
        return list(value)

    def _share(self, name: str) -> float:
        value = self.arguments.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise self._wrong(name, value, "from 0 to below 1")
        return float(value)

    def _wrong(self, name: str, value: Any, wanted: str) -> WeightsError:
        return WeightsError(f"{self._path}: {name} is {_shown(repr(value))}, not {wanted}; {REMEDY}.")


BLOCK = {"norm0": "norm1", "conv0": "conv1", "affine": "time_emb_proj", "norm1": "norm2", "conv1": "conv2"} | {
    "skip": "conv_shortcut"
}
"""The parts of EDM's block, and those of diffusers' residual block."""
ENDS = {"map_layer0": "time_embedding.linear_1", "map_layer1": "time_embedding.linear_2"} | {
    "out_norm": "conv_norm_out",
    "out_conv": "conv_out",
}


def _renamed(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under its name in a UNet2DModel. Raises WeightsError for one that has none, and for one of another shape
    where it is taken apart."""
    places = _places(config)
    for name, tensor in tensors.items():
        tensor = tensor.detach().float()
        place, _, rest = name.rpartition(".")
        if rest == "resample_filter":
            if tensor.numel() and not bool((tensor == tensor.flatten()[0]).all() and tensor.shape[-1] == 2):
                raise WeightsError(f"{path}: {_shown(name)} is no plain 2x2 average, which UNet2DModel halves by.")
        elif name == "map_label.weight":
            yield "class_embedding.weight", tensor.T.contiguous()
        elif name == "map_augment.weight":
            continue
        elif place in ENDS:
            yield f"{ENDS[place]}.{rest}", tensor
        elif (before := place.rpartition(".")[0]) in places or place in places:
            yield from _of_block(places.get(before) or places[place], place.rpartition(".")[2], rest, tensor, name, path)
        else:
            raise WeightsError(f"{path}: a UNet2DModel has no place for {_shown(name)}; {REMEDY}.")


def _of_block(
    block: tuple[str, str], part: str, rest: str, tensor: Tensor, name: str, path: Path
) -> Iterator[tuple[str, Tensor]]:
    residual, attention = block
    if residual == "conv_in":
        yield f"conv_in.{rest}", tensor
    elif part in BLOCK:
        yield f"{residual}.{BLOCK[part]}.{rest}", tensor
    elif part == "norm2" and attention:
        yield f"{attention}.group_norm.{rest}", tensor
    elif part == "proj" and attention:
        yield f"{attention}.to_out.0.{rest}", tensor.flatten(1) if rest == "weight" else tensor
    elif part == "qkv" and attention:
        if tensor.shape[0] % (3 * HEAD_DIM):
            raise WeightsError(f"{path}: {_shown(name)} has shape {tuple(tensor.shape)}, not of heads of {HEAD_DIM}.")
        # Its rows are [head, channel of the head, (query, key, value)].
        apart = tensor.reshape(-1, 3, *tensor.shape[1:]).unbind(1)
        for own, value in zip(("to_q", "to_k", "to_v"), apart, strict=True):
            yield f"{attention}.{own}.{rest}", (value.flatten(1) if rest == "weight" else value).contiguous()
    else:
        raise WeightsError(f"{path}: a UNet2DModel has no place for {_shown(name)}; {REMEDY}.")


def _places(config: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """For each of EDM's blocks the residual block of a UNet2DModel that it is, and the attention after it ("" if none)."""
    size, num_levels, num = config["sample_size"], len(config["block_out_channels"]), config["layers_per_block"]
    found = {f"enc.{size}x{size}_conv": ("conv_in", "")}
    last = num_levels - 1
    for level, kind in enumerate(config["down_block_types"]):
        at, attends = f"{size >> level}x{size >> level}", kind.startswith("Attn")
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        if level > 0:
            found[f"enc.{at}_down"] = (f"down_blocks.{level - 1}.downsamplers.0", "")
        if level < last:
            found[f"dec.{at}_up"] = (f"up_blocks.{last - level - 1}.upsamplers.0", "")
        for side, block, count in (("enc", down, num), ("dec", up, num + 1)):
            for number in range(count):
                attention = f"{block}.attentions.{number}" if attends else ""
                found[f"{side}.{at}_block{number}"] = (f"{block}.resnets.{number}", attention)
    deepest = f"dec.{size >> last}x{size >> last}"
    found[f"{deepest}_in0"] = ("mid_block.resnets.0", "mid_block.attentions.0")
    found[f"{deepest}_in1"] = ("mid_block.resnets.1", "")
    return found


def _keys(content: Mapping[Any, Any]) -> str:
    return fitted(", ".join(map(str, content)) or "nothing", 80)


def _shown(text: str) -> str:
    return fitted(text, 80)
