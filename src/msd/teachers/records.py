"""Pickles read as data: what a file asks to be called is looked up in a short table of our own, and nothing in it is run.

Research code saves networks as pickles of live objects, source text included (EDM, StyleGAN: "persistent" classes). Here
such an object becomes a `Record`: its class's name and its attributes. Whatever a file names beside plain containers,
numbers, arrays and tensors is refused by that name, before it could be imported.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from msd.errors import WeightsError
from msd.reading import open_regular, reason

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
DTYPES = {str(kind): kind for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64)} | {
    str(kind): kind for kind in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
}


@dataclass
class Record:
    """An object of the file's own: the name of its class, and its attributes as the file has them."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that it was made with, as persistent classes note them."""
        found = self.state.get("_init_kwargs")
        return dict(found) if isinstance(found, Mapping) else {}

    def modules(self) -> dict[str, Record]:
        """Of a network: the modules in it, by name."""
        found = self.state.get("_modules")
        return {name: one for name, one in found.items() if isinstance(one, Record)} if isinstance(found, Mapping) else {}

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Of a network: its parameters and buffers and those of the modules in it, by dotted name."""
        found: dict[str, Tensor] = {}
        waiting, seen = [(prefix, self)], set[int]()
        while waiting:
            before, record = waiting.pop()
            if id(record) in seen:
                raise WeightsError(
                    f"the module {before.rstrip('.')[:100]} is in the file's network twice; no network is so."
                )
            seen.add(id(record))
            for kind in ("_parameters", "_buffers"):
                own = record.state.get(kind)
                if isinstance(own, Mapping):
                    found |= {f"{before}{name}": one.value for name, one in own.items() if isinstance(one, Held)}
            waiting += [(f"{before}{name}.", one) for name, one in record.modules().items()]
        return found


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of the file's, out of its reach: a bare one could be filled anew by what follows in the file."""

    value: Tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a change of a tensor")


class Refused(Exception):
    """A file asked for something that is not in the table."""


def read_records(path: Path, remedy: str) -> Any:
    """What the pickle at `path` holds: containers, numbers, arrays, tensors (`Held`, on the CPU), and `Record`s.

    Raises WeightsError, ending in `remedy`: for a name that is not in the table, which is quoted, and for what is no whole
    pickle.
    """
    try:
        with open_regular(path) as stream:
            return _Unpickler(_Bounded(stream)).load()
    except Refused as error:
        raise WeightsError(f"{path} asks for {error}, which no weights need, so nothing of it was run; {remedy}.") from error
    except Exception as error:  # whatever unpickling makes of bytes that nobody has foreseen
        raise WeightsError(f"{path} cannot be read as a pickle ({reason(error)}); {remedy}.") from error


class _Bounded(io.RawIOBase):
    """A file of which no more is asked for than there is: a length in a pickle may say anything."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._left = stream.seek(0, io.SEEK_END)
        stream.seek(0)

    def read(self, size: int = -1, /) -> bytes:
        if size > self._left:
            raise EOFError("it ends early")
        data = self._stream.read(size)
        self._left -= len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        data = self._stream.readline(self._left if size is None else size)
        self._left -= len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        if memoryview(buffer).nbytes > self._left:
            raise EOFError("it ends early")
        num = self._stream.readinto(buffer)  # pyright: ignore[reportAttributeAccessIssue]
        self._left -= num
        return num


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        found = _TABLE.get(f"{module}.{name}")
        if found is not None:
            return found
        if module.startswith("torch.nn.modules.") and name.isidentifier():
            return _class(name)
        if module == "torch" and f"torch.{name}" in DTYPES:
            return DTYPES[f"torch.{name}"]
        raise Refused(_shown(f"{module}.{name}"))

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise Refused("something outside itself (a persistent id)")


def _shown(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:100])


class _Maker:
    """What a name of the table stands for: it can be called by a file, and cannot be changed by one."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise Refused("a change of what reads it")

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a change of what reads it")


class _Fixed(type):
    """A class that a file can make objects of, and cannot change."""

    def __setattr__(cls, name: str, value: Any) -> NoReturn:
        raise Refused("a change of what reads it")


class _Object(Record, metaclass=_Fixed):
    """A plain object of the file's: filled by its state once that is read."""

    def __new__(cls, *_: Any) -> _Object:
        made = super().__new__(cls)
        made.kind, made.state = cls.__name__, {}
        return made

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = _attributes(state)


class _Dictionary(dict[Any, Any], metaclass=_Fixed):
    """A dictionary with attributes (dnnlib's EasyDict)."""

    def __setstate__(self, state: Any) -> None:
        self.update(_attributes(state))


def _class(kind: str) -> type[_Object]:
    return _Fixed(kind, (_Object,), {})


def _attributes(state: Any) -> dict[str, Any]:
    """Of an object's pickled state: a dictionary, or a pair of one and slots."""
    if isinstance(state, tuple) and len(state) == 2:
        state = state[0]
    if not isinstance(state, Mapping):
        raise Refused("an object with a state that is no dictionary")
    return dict(state)


def _persistent(meta: Any) -> Record:
    """An object of a persistent class: `meta` has its class's name, the source text of its module (not looked at) and its
    attributes."""
    if not isinstance(meta, Mapping) or not isinstance(meta.get("class_name"), str):
        raise Refused("a persistent object without a class's name")
    return Record(meta["class_name"], _attributes(meta.get("state") or {}))


def _new_object(kind: Any, *_: Any) -> Any:
    """Protocols 0 and 1 make objects by `copyreg._reconstructor(class, base, state)`."""
    if not isinstance(kind, _Fixed):
        raise Refused("an object of no class in the table")
    return kind()


class _Numbers(NamedTuple):
    """What tensors are views of: one dimension, on the file's own bytes."""

    values: Tensor

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a change of a tensor")


class _StorageUnpickler(_Unpickler):
    """The description of a storage: where its numbers begin, and of which kind they are."""

    def find_class(self, module: str, name: str, /) -> Any:
        kind = STORAGES.get(name)
        if module not in ("torch", "torch.storage") or kind is None:
            raise Refused(_shown(f"{module}.{name}"))
        return kind

    def persistent_load(self, pid: Any, /) -> Any:
        return pid


def _storage(data: Any) -> _Numbers:
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


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Held:
    numbers = [offset, *size, *stride]
    if not isinstance(storage, _Numbers) or not all(type(one) is int and one >= 0 for one in numbers):
        raise Refused("a tensor of impossible shape")
    last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
    if len(size) > MAX_DIMENSIONS or (math.prod(size) and last >= len(storage.values)):
        raise Refused("a tensor beyond its own numbers")
    return Held(storage.values.as_strided(tuple(size), tuple(stride), offset))


def _parameter(tensor: Any, *_: Any) -> Held:
    if not isinstance(tensor, Held):
        raise Refused("a parameter that is no tensor")
    return tensor


class _Dtype:
    """A kind of number in arrays; objects are none."""

    def __init__(self, name: Any, *_: Any):
        kind = np.dtype(name if isinstance(name, str) else "O")
        if kind.kind not in "biuf":
            raise Refused(f"an array of {_shown(str(name))}")
        self.kind = kind

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
        self.kind = self.kind.newbyteorder(order if order in ("<", ">") else "=")


class _Array:
    """An array of numbers, filled by its state once that is read."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        if not isinstance(kind, _Dtype) or not isinstance(data, bytes):
            raise Refused("an array of objects")
        self.value = np.frombuffer(data, kind.kind).reshape(shape, order="F" if by_columns else "C")


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """How protocol 5 writes an array."""
    found = _Array()
    found.__setstate__((1, shape, kind, order == "F", bytes(data) if isinstance(data, bytearray) else data))
    return found


def _scalar(kind: Any, data: Any) -> float | int | bool:
    if not isinstance(kind, _Dtype) or not isinstance(data, bytes):
        raise Refused("a number that is an object")
    return np.frombuffer(data, kind.kind)[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    """How protocol 2 and below write bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise Refused(f"_codecs.encode by {_shown(str(encoding))}")
    return text.encode("latin1")


def _ordered(*pairs: Any) -> OrderedDict[Any, Any]:
    return OrderedDict(*pairs)


def _table() -> dict[str, Any]:
    """What a file may name, and what that is here: a class of ours, or a function behind a `_Maker`."""
    table: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _ordered,
        "builtins.set": lambda *values: set(*values),
        "builtins.frozenset": lambda *values: frozenset(*values),
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
        "copyreg._reconstructor": _new_object,
        "torch.storage._load_from_bytes": _storage,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.Size": lambda *sizes: tuple(*sizes),
        "torch.device": lambda *names: "cpu",
        "_codecs.encode": _encoded,
        "numpy.dtype": _Dtype,
        "builtins.object": lambda: Record("object"),
    }
    for module, old in (("builtins", "__builtin__"), ("copyreg", "copy_reg")):  # as protocols 0 to 2 call them
        table |= {name.replace(module, old, 1): make for name, make in table.items() if name.startswith(f"{module}.")}
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray._reconstruct"] = lambda *_: _Array()
        table[f"{core}.multiarray.scalar"] = _scalar
        table[f"{core}.numeric._frombuffer"] = _from_buffer
    table["numpy.ndarray"] = lambda *_: _Array()
    return {"dnnlib.util.EasyDict": _Dictionary, **{name: _Maker(make) for name, make in table.items()}}


_TABLE = _table()
