"""What a pickle may hold of numbers: tensors, arrays and scalars, made from a file's bytes by functions of our own.

Each refuses what is not a number, reaches beyond what the file has, or would change what was read already.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

MAX_DIMENSIONS = 16
MAGIC = 0x1950A86A20F9469CFC6C
"""How the old format of `torch.save` begins."""
STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the file's, out of its reach: a bare one could be filled anew by what follows in the file."""

    value: Tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a change of a tensor")


class Refused(Exception):
    """A file asked for something that is not in the table."""


def shown(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:100])


class _Numbers(NamedTuple):
    """What tensors are views of: one dimension, on the file's own bytes."""

    values: Tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a change of a tensor")


class _StorageUnpickler(pickle.Unpickler):
    """The description of a storage: where its numbers begin, and of which kind they are."""

    def find_class(self, module: str, name: str, /) -> Any:
        kind = STORAGES.get(name)
        if module not in ("torch", "torch.storage") or kind is None:
            raise Refused(shown(f"{module}.{name}"))
        return kind

    def persistent_load(self, pid: Any, /) -> Any:
        return pid


def storage(data: Any) -> _Numbers:
    """A tensor's numbers, which `torch.save` wrote within the pickle in its old format: five small pickles (a magic number,
    a version, notes of the machine, the storage, its key), then how many numbers there are, and these.

    They are not copied: a checkpoint may be as large as half of the memory.
    """
    if not isinstance(data, bytes):
        raise Refused("a tensor without bytes")
    stream = io.BytesIO(data)
    magic, _, machine, described, keys = (_StorageUnpickler(stream).load() for _ in range(5))
    if magic != MAGIC or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("numbers in a format that is not torch's, or of another kind of machine")
    if not isinstance(described, tuple) or len(described) != 6 or keys != [described[2]] or described[5] is not None:
        raise Refused("numbers that are several, or part of others")
    kind, begin = described[1], stream.tell() + 8
    num = int.from_bytes(data[stream.tell() : begin], "little", signed=True)
    if not isinstance(kind, torch.dtype) or num < 0 or begin + num * kind.itemsize > len(data):
        raise Refused("more numbers than it has")
    if num == 0:
        return _Numbers(torch.empty(0, dtype=kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the bytes cannot be written to, and nobody does
        return _Numbers(torch.frombuffer(data, dtype=kind, count=num, offset=begin))


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Held:
    numbers = [offset, *size, *stride]
    if not isinstance(storage, _Numbers) or not all(type(one) is int and one >= 0 for one in numbers):
        raise Refused("a tensor of impossible shape")
    last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
    # A stride of 0 would make many numbers of one, wherever they are copied.
    beyond = math.prod(size) and (last >= len(storage.values) or math.prod(size) > len(storage.values))
    if len(size) > MAX_DIMENSIONS or beyond:
        raise Refused("a tensor beyond its own numbers")
    return Held(storage.values.as_strided(tuple(size), tuple(stride), offset))


def parameter(value: Any, *_: Any) -> Held:
    if not isinstance(value, Held):
        raise Refused("a parameter that is no tensor")
    return value


class Dtype:
    """A kind of number in arrays; objects are none."""

    def __init__(self, name: Any, *_: Any):
        kind = np.dtype(name if isinstance(name, str) else "O")
        if kind.kind not in "biuf":
            raise Refused(f"an array of {shown(str(name))}")
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        self.kind = self.kind.newbyteorder(order if order in ("<", ">") else "=")


class Array:
    """An array of numbers, filled by its state once that is read."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        if not isinstance(kind, Dtype) or not isinstance(data, bytes):
            raise Refused("an array of objects")
        self.value = np.frombuffer(data, kind.kind).reshape(shape, order="F" if by_columns else "C")


def from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    """How protocol 5 writes an array."""
    found = Array()
    found.__setstate__((1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return found


def scalar(kind: Any, data: Any) -> float | int | bool:
    if not isinstance(kind, Dtype) or not isinstance(data, bytes):
        raise Refused("a number that is an object")
    return np.frombuffer(data, kind.kind)[0].item()
