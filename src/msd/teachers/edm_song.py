"""EDM's SongUNet (DDPM++ and NCSN++): the arguments and weights in its files, as those of our own module of that name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd.errors import WeightsError
from msd.networks.song_config import SongConfig
from msd.reading import fitted

LEFT_OUT = ("augment_dim", "label_dropout")
"""Arguments of the file's network that say how it was trained, and nothing of what it answers."""
ENDS = {"map_layer0": "embed0", "map_layer1": "embed1"}
LABELS = ("map_label.weight", "map_label.bias")


def read_song(path: Path, outer: Mapping[str, Any], arguments: Mapping[str, Any]) -> SongConfig:
    """The configuration of the network with `arguments`, inside what takes images and labels as `outer` says.

    Raises WeightsError for arguments that are none, or are not known here.
    """
    channels = outer.get("img_channels")
    given = {
        "img_resolution": outer.get("img_resolution"),
        "in_channels": channels,
        "out_channels": channels,
        "label_dim": outer.get("label_dim"),
    }
    try:
        return SongConfig.read({key: value for key, value in arguments.items() if key not in LEFT_OUT} | given)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def song_tensors(path: Path, tensors: Mapping[str, Tensor], config: SongConfig) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the file under its name in our SongUNet. Raises WeightsError for one that has no place there."""
    places = _places(config) | ENDS
    if any(name in tensors for name in LABELS):
        yield "class_embedding.weight", _classes(path, tensors, config)
    for name, tensor in tensors.items():
        parts = name.split(".")
        place = ".".join(parts[:2]) if parts[0] in ("enc", "dec") else parts[0]
        if parts[-1] == "resample_filter":
            _check_filter(path, name, tensor, config)
        elif name in LABELS or name == "map_augment.weight":
            continue
        elif name == "map_noise.freqs":
            yield "frequencies", tensor.detach().float()
        elif place in places:
            yield ".".join([places[place], *parts[place.count(".") + 1 :]]), tensor.detach().float()
        else:
            raise WeightsError(f"{path}: a SongUNet of these arguments has no place for {fitted(name, 80)}.")


def _classes(path: Path, tensors: Mapping[str, Tensor], config: SongConfig) -> Tensor:
    """The linear layer that reads a one-hot row times the square root of their number, as a table with a row a class."""
    missing = next((name for name in LABELS if name not in tensors), None)
    if missing:
        raise WeightsError(f"{path} lacks the weights of {missing}; restore it from where it came.")
    wanted = (config.noise_channels, config.label_dim)
    for name, shape in zip(LABELS, (wanted, wanted[:1]), strict=True):
        if tensors[name].shape != shape:
            raise WeightsError(f"{path}: the weights of {name} have shape {tuple(tensors[name].shape)}, not {shape}.")
    weight, bias = (tensors[name].detach().float() for name in LABELS)
    return (weight.T * config.label_dim**0.5 + bias).contiguous()


def _check_filter(path: Path, name: str, tensor: Tensor, config: SongConfig) -> None:
    taps = torch.tensor(config.resample_filter, dtype=torch.float32)
    wanted = taps.outer(taps) / taps.sum() ** 2
    if tensor.shape != (1, 1, *wanted.shape) or not torch.allclose(tensor.float(), wanted, atol=1e-6):
        raise WeightsError(f"{path}: {fitted(name, 80)} is not the filter {list(config.resample_filter)} of its arguments.")


def _places(config: SongConfig) -> dict[str, str]:
    """For each block and layer of EDM's network, by its name there, the one of ours that it is."""
    last, found = len(config.widths) - 1, {}
    for level, size in enumerate(config.sizes):
        down, up, enc, dec = f"down.{level}", f"up.{last - level}", f"enc.{size}x{size}", f"dec.{size}x{size}"
        # EDM halves where a level begins, and we where the one before it ends; doubling likewise.
        before, after = f"down.{level - 1}", f"up.{last - level - 1}"
        if level == 0:
            found |= {f"{enc}_conv": "conv_in", f"{dec}_aux_norm": "norm_out", f"{dec}_aux_conv": "conv_out"}
        else:
            found |= {f"{enc}_down": f"{before}.halving", f"{enc}_aux_residual": f"{before}.aside"}
        if level == last:
            found |= {f"{dec}_in0": "middle.blocks.0", f"{dec}_in1": "middle.blocks.1"}
        else:
            found[f"{dec}_up"] = f"{after}.doubling"
        found |= {f"{enc}_block{number}": f"{down}.blocks.{number}" for number in range(config.num_blocks)}
        found |= {f"{dec}_block{number}": f"{up}.blocks.{number}" for number in range(config.num_blocks + 1)}
    return found
