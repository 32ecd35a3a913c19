"""The user's own images: sources of every layout, whole and broken, looked at by `msd data check` and `msd init`."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import EITHER, FINE, Expect, judge
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import World
from PIL import Image

Make = Callable[[Path], Path]
"""Writes a source below a folder and returns its path."""

NUM, SIDE, CLASSES = 12, 8, ("cat", "dog")


def _picture(index: int, mode: str = "RGB", side: int = SIDE) -> bytes:
    values = np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def _files() -> dict[str, bytes]:
    return {f"{CLASSES[index % 2]}/{index}.png": _picture(index) for index in range(NUM)}


def _written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _folder(place: Path) -> Path:
    return _written(place / "pictures", _files())


def _with(place: Path, more: dict[str, bytes]) -> Path:
    """Class folders, and other files among them."""
    return _written(place / "pictures", _files() | more)


def _called(place: Path, cat: str, dog: str) -> Path:
    """Class folders of other names."""
    names = {"cat": cat, "dog": dog}
    return _written(place / "pictures", {f"{names[name[:3]]}{name[3:]}": content for name, content in _files().items()})


def _zip(place: Path, files: dict[str, bytes]) -> Path:
    path = place / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _npz(place: Path, **arrays: np.ndarray) -> Path:
    path = place / "pictures.npz"
    np.savez(path, **arrays)
    return path


def _idx(place: Path, images: bytes, labels: bytes) -> Path:
    return _written(place / "pictures", {"train-images-idx3-ubyte.gz": images, "train-labels-idx1-ubyte.gz": labels})


def _idx_bytes(values: np.ndarray, magic: bytes = b"\0\0\x08") -> bytes:
    head = magic + bytes([values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def _bomb() -> bytes:
    """The header of a PNG of 20,000 x 20,000 pixels, and a little of its data."""
    head = b"IHDR" + (20000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"IDAT" + zlib.compress(bytes(3 * 20001))
    chunks = (len(one[4:]).to_bytes(4, "big") + one + zlib.crc32(one).to_bytes(4, "big") for one in (head, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _linked(place: Path, name: str, target: str) -> Path:
    source = _folder(place)
    (source / name).symlink_to(target)
    return source


def _piped(place: Path) -> Path:
    source = _folder(place)
    os.mkfifo(source / "cat" / "pipe.png")
    return source


def _grey(num: int = NUM) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, SIDE, SIDE), dtype=np.uint8)


_LABELS = np.arange(NUM) % 2
_ROWS = "".join(f"{name},{name[:3]}\n" for name in _files())

WHOLE: dict[str, Make] = {
    "folders": _folder,
    "zip": lambda place: _zip(place, _files()),
    "csv": lambda place: _with(place, {"labels.csv": f"file,label\n{_ROWS}".encode()}),
    "dataset-json": lambda place: _written(
        place / "pictures",
        _files() | {"dataset.json": json.dumps({"labels": [[name, int(name[0] == "d")] for name in _files()]}).encode()},
    ),
    "npz": lambda place: _npz(place, images=_grey(), labels=_LABELS),
    "idx": lambda place: _idx(place, _idx_bytes(_grey()), _idx_bytes(_LABELS)),
    "a-text-beside": lambda place: _with(place, {"cat/notes.txt": b"mine", "Thumbs.db": b"x"}),
    "odd-alphabets": lambda place: _called(place, "кот", "[bold]犬"),
}
BROKEN: dict[str, Make] = {
    "nowhere": lambda place: place / "pictures",
    "empty-folder": lambda place: _written(place / "pictures", {}),
    "a-text-file": lambda place: _written(place / "x", {"pictures.txt": b"mine"}) / "pictures.txt",
    "one-class": lambda place: _written(place / "pictures", {f"cat/{index}.png": _picture(index) for index in range(4)}),
    "truncated-png": lambda place: _with(place, {"cat/0.png": _picture(0)[:60]}),
    "bomb": lambda place: _with(place, {"cat/bomb.png": _bomb()}),
    "zip-of-parents": lambda place: _zip(place, _files() | {"../../out.png": _picture(1)}),
    "zip-of-roots": lambda place: _zip(place, _files() | {"/out.png": _picture(1)}),
    "zip-truncated": lambda place: _cut(_zip(place, _files())),
    "csv-without-header": lambda place: _with(place, {"labels.csv": _ROWS.encode()}),
    "csv-of-missing": lambda place: _with(place, {"labels.csv": f"file,label\n{_ROWS}cat/none.png,cat\n".encode()}),
    "csv-not-utf8": lambda place: _with(place, {"labels.csv": b"file,label\n\xff\xfe,cat\n"}),
    "dataset-json-null": lambda place: _with(place, {"dataset.json": b'{"labels": null}'}),
    "dataset-json-broken": lambda place: _with(place, {"dataset.json": b'{"labels": [['}),
    "dataset-json-outside": lambda place: _with(
        place, {"dataset.json": b'{"labels": [["../../victim.txt", 0], ["cat/0.png", 1]]}'}
    ),
    "npz-of-objects": lambda place: _npz(place, images=np.array([{"a": 1}] * 4, dtype=object), labels=np.arange(4) % 2),
    "npz-without-labels": lambda place: _npz(place, images=_grey()),
    "npz-of-few-labels": lambda place: _npz(place, images=_grey(), labels=_LABELS[:-1]),
    "npz-of-floats": lambda place: _npz(place, images=_grey() * 3.7, labels=_LABELS),
    "npz-labels-skip": lambda place: _npz(place, images=_grey(), labels=_LABELS * 5),
    "npz-truncated": lambda place: _cut(_npz(place, images=_grey(), labels=_LABELS)),
    "idx-of-other-magic": lambda place: _idx(place, _idx_bytes(_grey(), b"\0\0\x0d"), _idx_bytes(_LABELS)),
    "idx-of-few-labels": lambda place: _idx(place, _idx_bytes(_grey()), _idx_bytes(_LABELS[:-1])),
    "idx-truncated": lambda place: _idx(
        place, gzip.compress(gzip.decompress(_idx_bytes(_grey()))[:-9]), _idx_bytes(_LABELS)
    ),
    "idx-not-gzip": lambda place: _idx(place, _idx_bytes(_grey())[:40], _idx_bytes(_LABELS)),
    "names-differ-by-case": lambda place: _written(
        place / "pictures", {f"{name}/{index}.png": _picture(index) for index, name in enumerate(["cat", "Cat", "dog"] * 3)}
    ),
}
ODD: dict[str, Make] = {
    "loop": lambda place: _linked(place, "loop", "."),
    "link-to-itself": lambda place: _linked(place, "self", "self"),
    "link-to-zeros": lambda place: _linked(place, "cat/zero.png", "/dev/zero"),
    "link-to-nothing": lambda place: _linked(place, "cat/gone.png", "nowhere"),
    "pipe": _piped,
    "grey-among-colour": lambda place: _with(place, {"cat/grey.png": _picture(3, "L")}),
    "other-sizes": lambda place: _with(place, {"cat/large.png": _picture(3, side=31)}),
    "nested-zip": lambda place: _zip(place, _files() | {"cat/more.zip": b"PK"}),
    "one-image-in-a-class": lambda place: _with(place, {"emu/0.png": _picture(50)}),
}
SETTINGS = ("data.size=0", "data.fit=tile", "data.background=beige-ish", "data.split=none", "dm.weight=1", "data.prior=1")
BUDGETS = ("0m", "-3m", "x", "", "30", "1e9h", "5s", "nan")


def _cut(path: Path) -> Path:
    os.truncate(path, path.stat().st_size * 2 // 3)
    return path


def cases(world: World) -> Iterator[Case]:
    for index, (name, make) in enumerate(WHOLE.items()):
        yield _case(f"check/{name}", make, FINE)
        if index % 4 == 0:
            yield _case(f"init/{name}", make, FINE, "init")
    for index, (name, make) in enumerate(BROKEN.items()):
        yield _case(f"check/{name}", make, Expect((2,), names=("pictures",)))
        if index % 4 == 0:
            yield _case(f"init/{name}", make, Expect((2,), names=("pictures",)), "init")
    for name, make in ODD.items():
        yield _case(f"check/{name}", make, EITHER)
    source = random.Random("bytes of pictures")
    for number in range(12):
        yield _case(f"check/png-byte-{number}", _flipped(source.random(), source.randrange(256)), EITHER)
    for value in BUDGETS:
        yield _case(f"init/budget-{value!r}", _folder, Expect((2,), names=("budget",)), "init", "--budget", value)
    for value in ("0", "7", "12", "100000", "x"):
        yield _case(f"init/size-{value!r}", _folder, Expect((2,)), "init", "--size", value)
    for value in (
        "data.size=0",
        "data.fit=tile",
        "data.background=beige-ish",
        "data.split=none",
        "dm.weight=1",
        "data.prior=1",
    ):
        yield _case(f"check/set {value}", _folder, Expect((2,)), "check", "--set", value)


def _flipped(share: float, value: int) -> Make:
    def make(place: Path) -> Path:
        source = _folder(place)
        path = source / "cat" / "0.png"
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] = value
        path.write_bytes(content)
        return source

    return make


def _case(name: str, make: Make, expect: Expect, verb: str = "check", *more: str) -> Case:
    def play(scene: Scene) -> list[Fault]:
        scene.keep(scene.folder / "victim.txt")
        cache, plan = scene.folder / "cache", scene.work / "plan.yaml"
        source = make(scene.work)
        words = ("init", source, "--out", plan) if verb == "init" else ("data", "check", source)
        done = scene.run(*words, *more, "--json", seconds=60, environment={"MSD_CACHE": str(cache)})
        faults = judge(done, expect)
        left = [path.name for path in cache.rglob("*") if path.name.endswith((".tmp", ".old"))] if cache.exists() else []
        faults += [Fault("leftover", f"{name} was left in the cache") for name in left]
        if done.code == 0 and verb == "init" and not plan.is_file():
            faults.append(Fault("wrong", "no recipe after exit code 0"))
        if done.code != 0 and plan.exists():
            faults.append(Fault("tree", "a recipe was written by a command that failed"))
        return faults

    return Case("images", name, play)
