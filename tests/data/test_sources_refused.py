"""Whatever is wrong with a source is one sentence that names it and the next step; nothing is left, nothing hangs."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.layouts import (
    encoded,
    idx_bytes,
    in_folders,
    random_pictures,
    shard_files,
    with_csv,
    write_files,
    write_idx,
    write_npz,
    write_tar,
    write_zip,
)
from msd.data.cache import open_images
from msd.data.sources import peek
from msd.errors import DataError
from msd.recipe import DataSection

PICTURES = random_pictures()
FILES = in_folders(PICTURES)
IMAGES = np.stack([pixels for _, pixels in PICTURES])
LABELS = np.array([label for label, _ in PICTURES])


def linked(folder: Path, name: str, target: str) -> Path:
    write_files(folder, FILES)
    (folder / name).symlink_to(target)
    return folder


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def renamed(names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    return [(f"{names[label]}/{index}.png", encoded(pixels)) for index, (label, pixels) in enumerate(PICTURES)]


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def idx(folder: Path, images: bytes, labels: bytes | None = idx_bytes(LABELS.astype(np.uint8))) -> Path:
    write_files(folder, [("train-images-idx3-ubyte", images)])
    return folder if labels is None else write_files(folder, [("train-labels-idx1-ubyte", labels)])


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def encrypted(path: Path) -> Path:
    content = bytearray(write_zip(path, FILES).read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return text(path, bytes(content))


def twice(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return write_zip(path, [*FILES, FILES[0]])


Case = tuple[Callable[[Path], Path], str]
CASES: dict[str, Case] = {
    "nothing": (lambda at: at / "none", r"none does not exist; give a folder or zip of class folders"),
    "an empty folder": (lambda at: write_files(at / "set", []), r"does not exist|is empty"),
    "an empty zip": (lambda at: write_zip(at / "set.zip", []), r"set\.zip is empty; give a folder"),
    "a pipe": (lambda at: pipe(at / "set.zip"), r"set\.zip is neither a folder nor a file; give"),
    "a text": (lambda at: text(at / "set.txt", "hi"), r"holds no images in a layout that is known; give"),
    "a flat folder": (
        lambda at: write_files(at / "set", [("a.png", FILES[0][1])]),
        r"says nothing of their classes; put each",
    ),
    "one class": (
        lambda at: write_files(at / "set", [("cat/a.png", FILES[0][1])]),
        r"set has images of one class only \(cat\); give two or more\.",
    ),
    "names that differ by case": (
        lambda at: write_zip(at / "set.zip", renamed(("cat", "Cat", "dog"))),
        r"has the classes 'Cat' and 'cat', which differ only by case, .*; rename one of them\.",
    ),
    "a name of two lines": (lambda at: write_files(at / "set", renamed(("a", "b", "c\nd"))), r"has a class named 'c\\nd'"),
    "a name that is no text": (
        lambda at: write_files(at / "set", renamed(("a", "b", "c" + os.fsdecode(b"\xff")))),
        r"has a class named 'c.*'; rename it",
    ),
    "a class without images": (
        lambda at: write_files(at / "set", [*FILES, ("7/notes.txt", b"-")]),
        r"has no images of class '7'; take what announces",
    ),
    "numbers with a gap": (
        lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS * 2),
        r"has labels up to 4 and no image of class 1; number without gaps from 0, or name all classes",
    ),
    "numbers from 1": (lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS + 1), r"no image of class 0; number"),
    "numbers below 0": (lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS - 1), r"has the label -1; number"),
    "more numbers than names": (
        lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS, classes=np.array(["a", "b"])),
        r"has the label 2 and names for 2 classes; name all in data\.classes\.",
    ),
    "a circle of links": (
        lambda at: linked(at / "set", "0/again", "../0"),
        r"again is a link to a folder, .*; put the folder",
    ),
    "a link to itself": (lambda at: linked(at / "set", "0/loop", "loop"), r"loop is a link to a folder"),
    "a class that is a link": (lambda at: linked(at / "set", "9", "0"), r"set/9 is a link to a folder"),
    "a broken link": (
        lambda at: linked(at / "set", "0/gone.png", "nowhere"),
        r"0/gone\.png is damaged \(no such file.*\); mend",
    ),
    "a pipe among images": (
        lambda at: pipe(write_files(at / "set", FILES) / "0" / "p.png").parents[1],
        r"not a file but a pipe",
    ),
    "a name out of a zip": (
        lambda at: write_zip(at / "set.zip", [*FILES, ("0/../../evil.png", b"-")]),
        r"set\.zip holds a file named '0/\.\./\.\./evil\.png', which leads out of it; pack it again",
    ),
    "an absolute name": (lambda at: write_zip(at / "set.zip", [*FILES, ("/etc/evil.png", b"-")]), r"which leads out of it"),
    "a zip in a zip": (
        lambda at: write_zip(at / "set.zip", [*FILES, ("0/inner.zip", b"-")]),
        r"holds another archive, '0/inner\.zip', which is not opened; unpack it first\.",
    ),
    "a zip with a password": (
        lambda at: encrypted(at / "set.zip"),
        r"is encrypted \(.*\); pack it again without a password",
    ),
    "a name twice in a zip": (lambda at: twice(at / "set.zip"), r"holds '0/image 0\.png' twice; pack it again"),
    "no zip": (lambda at: text(at / "set.zip", "PK nothing"), r"cannot be read as a zip \(.*\); restore it"),
    "csv without header": (
        lambda at: write_files(at / "set", with_csv(PICTURES, "0.png,0\n")),
        r"labels\.csv has no header that names file and label; begin it with the line file,label\.",
    ),
    "csv of one column": (
        lambda at: write_files(at / "set", with_csv(PICTURES, joint=" ")),
        r"line 2 of .* lacks a file or a",
    ),
    "csv naming missing files": (
        lambda at: write_files(at / "set", with_csv(PICTURES)[3:]),
        r"set: 0\.png is damaged \(it does not exist\), the first of 3 such of 12; mend or remove them, or set",
    ),
    "csv naming a file twice": (
        lambda at: write_files(at / "set", [("a.png", b"-"), ("labels.csv", b"file,label\na.png,1\na.png,2\n")]),
        r"labels\.csv names 'a\.png' twice; keep one",
    ),
    "csv in another encoding": (
        lambda at: text(at / "set" / "labels.csv", b"file,label\n\xff,1\n").parent,
        r"it is not UTF-8",
    ),
    "csv of nothing": (lambda at: text(at / "set" / "labels.csv", "file,label\n").parent, r"names no images; add a line"),
    "a list that leads out": (
        lambda at: text(at / "set" / "labels.csv", "file,label\n../a.png,1\n").parent,
        r"names '\.\./a\.png', which is no path below it",
    ),
    "two lists": (
        lambda at: write_files(at / "set", [*with_csv(PICTURES), ("dataset.json", b"{}")]),
        r"holds both dataset\.json and labels\.csv; keep the one",
    ),
    "json without labels": (lambda at: text(at / "set" / "dataset.json", '{"labels": null}').parent, r"its labels are null"),
    "json of something": (lambda at: text(at / "set" / "dataset.json", "[1, 2").parent, r"dataset\.json .*cannot be read"),
    "json of other labels": (
        lambda at: text(at / "set" / "dataset.json", '{"labels": [["a.png", 1.5]]}').parent,
        r"dataset\.json is not a list of labels \(labels\.0\.1",
    ),
    "npz of objects": (
        lambda at: saved(at / "set.npz", images=IMAGES.astype(object), labels=LABELS),
        r"set\.npz cannot be used \(images are pickled objects, which could run code\); save plain numbers",
    ),
    "npz of object labels": (
        lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS.astype(object)),
        r"labels are pickled objects",
    ),
    "npz of floats": (
        lambda at: saved(at / "set.npz", images=IMAGES / 255, labels=LABELS),
        r"images are float64 \(12, 6, 6\)\); give uint8 0\.\.255",
    ),
    "npz without labels": (lambda at: saved(at / "set.npz", images=IMAGES), r"it has no 'labels'\); save it with np\.savez"),
    "npz of one-hot labels": (
        lambda at: saved(at / "set.npz", images=IMAGES, labels=np.eye(12)),
        r"labels are float64 \(12, 12\)",
    ),
    "npz of too few labels": (
        lambda at: saved(at / "set.npz", images=IMAGES, labels=LABELS[:5]),
        r"there are 12 images and 5 labels",
    ),
    "npz of columns": (
        lambda at: saved(at / "set.npz", images=np.asfortranarray(IMAGES), labels=LABELS),
        r"images lie column by column\); save np\.ascontiguousarray\(images\)",
    ),
    "npz of many channels": (
        lambda at: saved(at / "set.npz", images=np.zeros((12, 7, 6, 6), np.uint8), labels=LABELS),
        r"have no axis of 1, 3 or 4 channels",
    ),
    "npz that was cut": (
        lambda at: text(at / "cut.npz", write_npz(at / "set.npz", PICTURES).read_bytes()[:300]),
        r"cut\.npz cannot be used \(.*\); restore it",
    ),
    "IDX of another magic": (
        lambda at: idx(at / "set", b"\0\0\x0d" + idx_bytes(IMAGES)[3:]),
        r"no IDX file \(its first bytes",
    ),
    "IDX of other counts": (
        lambda at: idx(at / "set", idx_bytes(IMAGES[:5])),
        r"holds 5 images and train-labels-idx1-ubyte 12 labels; restore both",
    ),
    "IDX that ends early": (lambda at: idx(at / "set", idx_bytes(IMAGES)[:-7]), r"\(it ends before it should\); restore it"),
    "IDX that goes on": (lambda at: idx(at / "set", idx_bytes(IMAGES) + b"-"), r"it goes on after the 12 images"),
    "IDX without labels": (
        lambda at: idx(at / "set", idx_bytes(IMAGES), None),
        r"has no labels beside it; add train-labels-idx1",
    ),
    "IDX of huge sizes": (
        lambda at: idx(at / "set", b"\0\0\x08\x03" + b"\0\0\0\x0c" + b"\xff" * 8),
        r"its images are of shape \(4294967295, 4294967295\)",
    ),
    "IDX that announces billions": (
        lambda at: idx(at / "set", idx_bytes(IMAGES), b"\0\0\x08\x01\xff\xff\xff\xff\0"),
        r"ends before it should|announces",
    ),
    "IDX packed and cut": (
        lambda at: (
            text(
                write_idx(at / "set", PICTURES) / "train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(IMAGES))[:-30]
            ).parent
        ),
        r"train-images-idx3-ubyte\.gz is damaged",
    ),
    "a shard that was cut": (
        lambda at: text(at / "cut.tar", write_tar(at / "set.tar", shard_files(PICTURES)).read_bytes()[:5000]),
        r"cut\.tar is damaged \(.*\); restore it|one class|is damaged",
    ),
    "a sample without label": (
        lambda at: write_tar(at / "set.tar", [*shard_files(PICTURES), ("z.png", FILES[0][1])]),
        r"set\.tar, z\.png has no label; add z\.cls",
    ),
    "a label that is none": (
        lambda at: write_tar(at / "set.tar", [("a.png", FILES[0][1]), ("a.json", b'{"label": 1.5}')]),
        r"a\.json is no label \(it says no label\); write",
    ),
    "no shard": (lambda at: text(at / "set.tar", "nothing"), r"set\.tar is damaged \(.*\); restore it"),
    "an unknown format": (
        lambda at: write_files(at / "set", [*FILES, ("0/a.HEIC", b"-")]),
        r"0/a\.HEIC is damaged \(heic is not",
    ),
    "images of two sizes": (
        lambda at: write_files(at / "set", [*FILES, ("1/wide.png", encoded(np.zeros((4, 9), np.uint8)))]),
        r"differ in size \(6x6, 9x4; .*\); set data\.size=32",
    ),
    "images that are not square": (
        lambda at: saved(at / "set.npz", images=np.zeros((12, 4, 9), np.uint8), labels=LABELS),
        r"are not square \(9x4\); set data\.size=32",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_source_is_refused_in_one_sentence(case: str, tmp_path: Path, cache: Path) -> None:
    make, sentence = CASES[case]
    source = make(tmp_path)
    if case == "an empty folder":
        source.mkdir()
    with pytest.raises(DataError, match=sentence) as caught:
        open_images(DataSection(source=str(source)))
    message = str(caught.value)
    assert message.endswith(".")
    assert "; " in message
    assert "\n" not in message
    assert not [path for path in cache.rglob("*") if path.is_file()]
    with contextlib.suppress(DataError):  # a look may find fault too, and raises nothing else
        peek(DataSection(source=str(source)))
