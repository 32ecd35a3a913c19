"""Writers of the same pictures in every layout that is read."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = list[tuple[int, NDArray[np.uint8]]]
"""Labels with pixels `[H, W]` or `[H, W, 3]`."""


def random_pictures(num: int = 12, size: int = 6, channels: int = 1, seed: int = 0, num_classes: int = 3) -> Pictures:
    """Pictures of noise, classes in turn."""
    shape = (num, size, size) if channels == 1 else (num, size, size, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return [(index % num_classes, picture) for index, picture in enumerate(pixels)]


def encoded(pixels: NDArray[np.uint8], form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path: Path, files: Iterable[tuple[str, bytes]], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(prefix + name, content)
    return path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def in_folders(pictures: Pictures) -> list[tuple[str, bytes]]:
    return [(f"{label}/image {index}.png", encoded(pixels)) for index, (label, pixels) in enumerate(pictures)]


def with_dataset_json(pictures: Pictures) -> list[tuple[str, bytes]]:
    names = [f"{index // 4:05d}/img{index:08d}.png" for index in range(len(pictures))]
    labels = [[name, label] for name, (label, _) in zip(names, pictures, strict=True)]
    files = [(name, encoded(pixels)) for name, (_, pixels) in zip(names, pictures, strict=True)]
    return [*files, ("dataset.json", json.dumps({"labels": labels}).encode())]


def with_csv(pictures: Pictures, start: str = "file,label\n", joint: str = ",") -> list[tuple[str, bytes]]:
    lines = "".join(f"{index}.png{joint}{label}\n" for index, (label, _) in enumerate(pictures))
    files = [(f"{index}.png", encoded(pixels)) for index, (_, pixels) in enumerate(pictures)]
    return [*files, ("labels.csv", (start + lines).encode())]


def write_npz(path: Path, pictures: Pictures, *, channels_first: bool = False, names: bool = False) -> Path:
    images = np.stack([pixels for _, pixels in pictures])
    if channels_first:
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.array([f"{label}" if names else label for label, _ in pictures])
    np.savez_compressed(path, images=np.ascontiguousarray(images), labels=labels)
    return path


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, pictures: Pictures, part: str = "train-", *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = np.stack([pixels for _, pixels in pictures]), np.array([label for label, _ in pictures], np.uint8)
    for name, array in ((f"images-idx{images.ndim}-ubyte", images), ("labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        ending = ".gz" if packed else ""
        (folder / f"{part}{name}{ending}").write_bytes(gzip.compress(content) if packed else content)
    return folder


def shard_files(pictures: Pictures, kind: str = "cls") -> list[tuple[str, bytes]]:
    files = []
    for index, (label, pixels) in enumerate(pictures):
        said = json.dumps({"label": label, "caption": "none"}) if kind == "json" else str(label)
        files += [(f"{index:05d}.{kind}", said.encode()), (f"{index:05d}.png", encoded(pixels))]
    return files


def table(pictures: Pictures, names: list[str] | None = None, *, as_struct: bool = True) -> Any:
    """A pyarrow table as `datasets` writes one."""
    import pyarrow as pa

    content = [encoded(pixels) for _, pixels in pictures]
    images = pa.array([{"bytes": one, "path": None} for one in content] if as_struct else content)
    labels = pa.array([label for label, _ in pictures], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    return pa.table({"image": images, "label": labels}).replace_schema_metadata(noted)


def write_parquet(folder: Path, pictures: Pictures, names: list[str] | None = None, **options: Any) -> Path:
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table(pictures, names, **options), folder / "train-00000-of-00001.parquet", row_group_size=5)
    return folder


def write_saved(folder: Path, pictures: Pictures, split: str | None = None) -> Path:
    """As `Dataset.save_to_disk` leaves it, or `DatasetDict`'s with one split."""
    from pyarrow import ipc

    inner = folder / split if split else folder
    inner.mkdir(parents=True)
    if split:
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    names = sorted({str(label) for label, _ in pictures})
    made = table(pictures)
    with ipc.new_stream(str(inner / "data-00000-of-00001.arrow"), made.schema) as stream:
        stream.write_table(made, max_chunksize=4)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    (inner / "dataset_info.json").write_text(json.dumps({"features": features, "description": ""}))
    files = [{"filename": "data-00000-of-00001.arrow"}]
    (inner / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "0", "_split": split}))
    return folder


WRITERS: dict[str, Callable[[Path, Pictures], Path]] = {
    "class folders": lambda place, pictures: write_files(place / "set", in_folders(pictures)),
    "zip of class folders": lambda place, pictures: write_zip(place / "set.zip", in_folders(pictures)),
    "zip of a folder of them": lambda place, pictures: write_zip(place / "set.zip", in_folders(pictures), "my set/"),
    "dataset.json": lambda place, pictures: write_files(place / "set", with_dataset_json(pictures)),
    "zip with dataset.json": lambda place, pictures: write_zip(place / "set.zip", with_dataset_json(pictures)),
    "labels.csv": lambda place, pictures: write_files(place / "set", with_csv(pictures)),
    "zip with labels.csv": lambda place, pictures: write_zip(
        place / "set.zip", with_csv(pictures, "\ufefffile;label\r\n", ";")
    ),
    "npz": lambda place, pictures: write_npz(place / "set.npz", pictures),
    "npz, channels first, names": lambda place, pictures: write_npz(
        place / "set.npz", pictures, channels_first=True, names=True
    ),
    "IDX, packed": lambda place, pictures: write_idx(place / "set", pictures),
    "IDX, plain": lambda place, pictures: write_idx(place / "set", pictures, part="", packed=False),
    "zip of IDX": lambda place, pictures: write_zip(
        place / "set.zip", [(path.name, path.read_bytes()) for path in write_idx(place / "inner", pictures).iterdir()]
    ),
    "shards, cls": lambda place, pictures: write_tar(place / "set.tar", shard_files(pictures)),
    "shards, json": lambda place, pictures: write_tar(place / "set.tar.gz", shard_files(pictures, "json")),
    "shards, txt": lambda place, pictures: write_tar(place / "s" / "a-000.tar", shard_files(pictures, "txt")).parent,
}
TABLES: dict[str, Callable[[Path, Pictures], Path]] = {
    "Parquet": lambda place, pictures: write_parquet(place / "set", pictures),
    "Parquet of bytes": lambda place, pictures: write_parquet(place / "set", pictures, as_struct=False),
    "saved dataset": lambda place, pictures: write_saved(place / "set", pictures),
    "saved splits": lambda place, pictures: write_saved(place / "set", pictures, "train"),
}
"""Layouts that need pyarrow."""
