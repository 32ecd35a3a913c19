"""Pickles that would run something: none does, each is refused, and what reads them is not changed by any."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edm_files import PERSISTENCE, Linear, edm_bytes
from msd.errors import WeightsError
from msd.teachers import records
from msd.teachers.records import Record, read_records

REMEDY = "give another"


class Calls:
    """Pickled as a call of `function` with `arguments`, with a state to follow."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None):
        self._parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self._parts


def named(module: str, name: str, *arguments: bytes) -> bytes:
    """A call, by name, of anything whatever, with arguments that are pickled already (without their ends)."""
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def text(value: str) -> bytes:
    return b"V" + value.encode("unicode_escape") + b"\n"


def evil_storage() -> bytes:
    """A tensor's numbers that are a pickle of their own."""
    inner = io.BytesIO()
    torch.save(Calls(os.mkdir, "ran"), inner, _use_new_zipfile_serialization=False)
    return pickle.dumps(Calls(torch.storage._load_from_bytes, inner.getvalue()))


def table_name(name: str) -> bytes:
    module, _, last = name.rpartition(".")
    return f"c{module}\n{last}\n".encode()


FUNCTIONS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("os", "mkdir"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "compile"),
    ("builtins", "open"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("importlib", "import_module"),
    ("functools", "partial"),
    ("functools", "reduce"),
    ("operator", "attrgetter"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("types", "FunctionType"),
    ("types", "CodeType"),
    ("runpy", "run_path"),
    ("webbrowser", "open"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.jit", "load"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch.nn.modules.module", "Module.register_forward_hook"),
    ("torch.serialization", "load"),
    ("torch_utils.persistence", "persistent_class"),
    ("torch_utils.misc", "copy_params_and_buffers"),
    ("training.networks", "EDMPrecond"),
    ("dnnlib.util", "open_url"),
    ("dnnlib.util", "call_func_by_name"),
    ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "namedtuple"),
    ("collections.OrderedDict", "update"),
    ("msd.teachers.records", "_Maker"),
]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=[".".join(pair) for pair in FUNCTIONS])
def test_a_call_of_anything_not_in_the_table_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(named(module, name, text("ran")))
    with pytest.raises(WeightsError, match=f"asks for {module}.{name}, which no weights need, so nothing of it was run"):
        read_records(path, REMEDY)
    assert [one.name for one in tmp_path.iterdir()] == ["evil.pkl"]


GLOBAL_OBJECT = b"\x80\x04\x8c\x08builtins\x8c\x19object.__subclasses__     ".replace(b"     ", b"")
CASES: dict[str, bytes] = {
    "a callable as a value": pickle.dumps({"state_dict": {"weight": os.system}}),
    "a callable deep inside": pickle.dumps([[{"a": (1, [os.mkdir])}]]),
    "dotted, by the stack": b"\x80\x04\x8c\x08builtins\x8c\x15object.__subclasses__\x93.",
    "dotted into the table": b"\x80\x04\x8c\x0bcollections\x8c\x16OrderedDict.__init__.x\x93.",
    "an instance, old style": b"(" + text("ran") + b"ios\nsystem\n.",
    "an object, old style": b"(cos\nsystem\n" + text("ran") + b"o.",
    "a new object of a function": b"\x80\x02cos\nsystem\n" + text("ran") + b"\x85\x81.",
    "numbers that are a pickle": evil_storage(),
    "a persistent id": b"Pfile\n.",
    "a binary persistent id": text("file") + b"Q.",
    "an extension": b"\x80\x02\x82\x01.",
    "a change of a function": table_name("torch._utils._rebuild_parameter") + b"}" + text("__doc__") + text("x") + b"sb.",
    "slots of a function": table_name("torch.storage._load_from_bytes")
    + b"(N}" + text("_make") + text("x") + b"stb.",
    "slots of a class": table_name("dnnlib.util.EasyDict") + b"(N}" + text("update") + text("x") + b"stb.",
    "slots of a container's class": table_name("collections.OrderedDict") + b"(N}" + text("x") + text("x") + b"stb.",
    "a call of what is no function": b"(lp0\n(tR.",
    "a call of what was made": table_name("collections.OrderedDict") + b"(tR(tR.",
    "a persistent object without a class": named(PERSISTENCE, "_reconstruct_persistent_obj", b"}"),
    "a persistent object of a list": named(PERSISTENCE, "_reconstruct_persistent_obj", b"("),
    "an array of objects": pickle.dumps(np.array([os.system], dtype=object)),
    "a number that is an object": named("numpy.core.multiarray", "scalar", b"cnumpy\ndtype\n(" + text("O") + b"tR", b"N"),
    "bytes by another encoding": named("_codecs", "encode", text("x"), text("zip")),
    "a memo that is not there": b"g7\n.",
    "a stack that is empty": b"R.",
    "more bytes than there are": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "a frame longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N.",
    "a text longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".",
    "no end": b"(((((((((",
    "an integer without end": b"L" + b"9" * 100_000 + b"L\n.",
    "an unknown protocol": b"\x80\xff.",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tricks_are_refused_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(CASES[name])
    before = dict(records._TABLE), records._Dictionary.update, dict(vars(records._Dictionary))
    with pytest.raises(WeightsError, match=r"asks for .* nothing of it was run|cannot be read as a pickle") as caught:
        read_records(path, REMEDY)
    assert "\n" not in str(caught.value)
    assert before == (dict(records._TABLE), records._Dictionary.update, dict(vars(records._Dictionary)))
    assert [one.name for one in tmp_path.iterdir()] == ["evil.pkl"]


def tensor_call(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor of four numbers that claims another shape."""
    storage = torch.ones(4).storage()
    return pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {}))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((4,), (1,), 1),
        ((2,), (2**40,), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((2, 2), (1,), 0),
        ((2**40,), (0,), 0),
    ],
)
def test_a_tensor_reaches_no_further_than_its_own_numbers(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(tensor_call(size, stride, offset))
    with pytest.raises(WeightsError, match=r"asks for a tensor|cannot be read as a pickle"):
        read_records(path, REMEDY)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_what_is_harmless_is_read_as_it_is(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    values = {
        "numbers": [1, 2.5, True, None, np.float64(0.25), np.int32(7)],
        "texts": ("a", b"\x00\xff", {"x", "y"}),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "size": torch.Size([1, 2]),
        "kind": torch.float16,
    }
    path.write_bytes(pickle.dumps(values, protocol))
    found = read_records(path, REMEDY)
    assert found["numbers"] == [1, 2.5, True, None, 0.25, 7]
    assert found["texts"] == values["texts"]
    np.testing.assert_array_equal(found["array"].value, values["array"])
    assert (found["size"], found["kind"]) == ((1, 2), torch.float16)


def test_objects_are_records_and_their_source_text_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    torch.manual_seed(0)
    inner = torch.nn.ModuleDict({"a": Linear(3, 2), "b": torch.nn.BatchNorm1d(2)})
    path.write_bytes(edm_bytes(inner))
    found = read_records(path, REMEDY)
    assert isinstance(found, Record)
    assert (found.kind, found.modules()["a"].kind, found.modules()["b"].kind) == ("ModuleDict", "Linear", "BatchNorm1d")
    assert found.modules()["a"].arguments()["in_features"] == 3
    tensors, wanted = found.tensors(), inner.state_dict()
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_a_network_that_holds_itself_has_an_end() -> None:
    record = Record("Loop")
    record.state["_modules"] = {"again": record}
    with pytest.raises(WeightsError, match="again is in the file's network twice"):
        record.tensors()
