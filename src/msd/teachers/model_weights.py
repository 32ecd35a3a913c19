"""The weights of one diffusers model: safetensors, whole or in shards, or torch's file of plain tensors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd.errors import WeightsError
from msd.networks.tensors import load_tensors
from msd.reading import Kind, fitted, inside, not_itself, open_regular, read_object, reason

BASE = "diffusion_pytorch_model"
REMEDY = "download the folder again"
NAMES = (
    f"{BASE}.safetensors",
    f"{BASE}.safetensors.index.json",
    f"{BASE}.fp16.safetensors",
    f"{BASE}.bin",
)
"""Files of weights, in the order in which they are looked for."""
RENAMED = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))
"""Parts of attention in checkpoints from before diffusers 0.13, and what they are called since."""
_OLD = re.compile(rf"(.*attentions\.\d+)\.({'|'.join(old for old, _ in RENAMED)})\.(weight|bias)")


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights of a model's folder are in. Raises WeightsError where there are none."""
    found = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(f"{folder} has no weights ({NAMES[0]}, or in shards, or {NAMES[-1]}); {REMEDY}.")
    if found.suffix != ".json":
        return [found]
    kind = Kind("an index of shards", REMEDY, WeightsError)
    shards = read_object(found, dict[str, Any], kind).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{found} lists no shards (weight_map); {REMEDY}.")
    files = [inside(folder, str(name)) for name in sorted({str(name) for name in shards.values()})]
    for name, path in zip(sorted({str(name) for name in shards.values()}), files, strict=True):
        if path is None or not path.is_file():
            raise WeightsError(f"{found} lists {fitted(repr(name), 80)}, which is not there; {REMEDY}.")
    return [found, *(path for path in files if path is not None)]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder in float32, by the names that diffusers has for them today.

    No code of a file is run. Raises WeightsError for a file that is none, and for a tensor that two shards have.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        if path.suffix == ".json":
            continue
        what = _what_else(path)
        if what:
            raise WeightsError(f"{path} is {what}.")
        for name, tensor in (_torch_file(path) if path.suffix == ".bin" else load_tensors(path, REMEDY)).items():
            if name in tensors:
                raise WeightsError(f"{path} has {fitted(name, 80)} that another shard has too; {REMEDY}.")
            if not tensor.is_floating_point():
                raise WeightsError(f"{path}: {fitted(name, 80)} holds no floating-point numbers; {REMEDY}.")
            tensors[_of_today(name)] = tensor.float()
    return tensors


def _of_today(name: str) -> str:
    found = _OLD.fullmatch(name)
    return f"{found[1]}.{dict(RENAMED)[found[2]]}.{found[3]}" if found else name


def _what_else(path: Path) -> str:
    try:
        with open_regular(path) as stream:
            return not_itself(stream.read(100))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read ({reason(error)}); {REMEDY}.") from error


def _torch_file(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of torch, zipfile and pickle, each with several kinds
        raise WeightsError(f"{path} cannot be read as tensors ({reason(error)}); {REMEDY}.") from error
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise WeightsError(f"{path} holds something else than tensors by their names; {REMEDY}.")
    return found
