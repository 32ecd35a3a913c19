"""Pickles read as data: what a file asks to be called is looked up in a short table of our own, and nothing in it is run.

Research code saves networks as pickles of live objects, source text included (EDM, StyleGAN: "persistent" classes). Here
such an object becomes a `Record`: its class's name and its attributes. Whatever a file names beside plain containers,
numbers, arrays and tensors is refused by that name, before it could be imported.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from msd.errors import WeightsError
from msd.reading import open_regular, reason
from msd.teachers.pickled_numbers import (
    Array,
    Dtype,
    Held,
    Refused,
    from_buffer,
    parameter,
    scalar,
    shown,
    storage,
    tensor,
)

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
        raise Refused(shown(f"{module}.{name}"))

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise Refused("something outside itself (a persistent id)")


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


def _encoded(text: Any, encoding: Any) -> bytes:
    """How protocol 2 and below write bytes."""
    if encoding != "latin1" or not isinstance(text, str):
        raise Refused(f"_codecs.encode by {shown(str(encoding))}")
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
        "torch.storage._load_from_bytes": storage,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": parameter,
        "torch.Size": lambda *sizes: tuple(*sizes),
        "torch.device": lambda *names: "cpu",
        "_codecs.encode": _encoded,
        "numpy.dtype": Dtype,
        "builtins.object": lambda: Record("object"),
    }
    for module, old in (("builtins", "__builtin__"), ("copyreg", "copy_reg")):  # as protocols 0 to 2 call them
        table |= {name.replace(module, old, 1): make for name, make in table.items() if name.startswith(f"{module}.")}
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray._reconstruct"] = lambda *_: Array()
        table[f"{core}.multiarray.scalar"] = scalar
        table[f"{core}.numeric._frombuffer"] = from_buffer
    table["numpy.ndarray"] = lambda *_: Array()
    return {"dnnlib.util.EasyDict": _Dictionary, **{name: _Maker(make) for name, make in table.items()}}


_TABLE = _table()
