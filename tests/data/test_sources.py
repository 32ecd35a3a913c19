"""Whatever layout the same pictures come in, they are one set."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from data.layouts import (
    TABLES,
    WRITERS,
    Pictures,
    encoded,
    in_folders,
    random_pictures,
    shard_files,
    write_files,
    write_idx,
    write_npz,
    write_parquet,
    write_saved,
    write_tar,
    write_zip,
)
from msd.data.cache import findings, open_images
from msd.data.images import ImageSet
from msd.data.sources import peek
from msd.diffusion.draw import Draw
from msd.errors import DataError
from msd.recipe import DataSection

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_HASH = "744a8d170e86270b0d26b4a000d3ce634bd925bd1810ecf5940c204e48bf2ce1"
FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def opened(source: Path, **values: Any) -> ImageSet:
    return open_images(DataSection(source=str(source), **values))


def in_memory(pictures: Pictures) -> ImageSet:
    """What the pictures are as a set, made without any of what is tested."""
    pixels = np.stack([one[None] if one.ndim == 2 else one.transpose(2, 0, 1) for _, one in pictures])
    labels = np.array([label for label, _ in pictures], np.int64)
    order = sorted(range(len(labels)), key=lambda index: (labels[index], hashlib.sha256(pixels[index].tobytes()).digest()))
    return ImageSet(
        "set", torch.from_numpy(pixels[order]), torch.from_numpy(labels[order]), int(labels.max()) + 1, licence="none"
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [*WRITERS, *TABLES])
def test_the_same_pictures_are_one_set_in_every_layout(layout: str, channels: int, tmp_path: Path, cache: Path) -> None:
    if layout in TABLES:
        pytest.importorskip("pyarrow")
    pictures = random_pictures(channels=channels)
    source = (WRITERS | TABLES)[layout](tmp_path, pictures)
    images, wanted = opened(source), in_memory(pictures)
    assert images.hash == wanted.hash
    assert torch.equal(images.pixels, wanted.pixels)
    assert torch.equal(images.labels, wanted.labels)
    assert images.classes == ("0", "1", "2")
    seen = peek(DataSection(source=str(source)))
    assert (seen.num_images, seen.channels, seen.sizes) == (12, channels, {"6x6": 12})
    assert seen.classes == {"0": 4, "1": 4, "2": 4}


@given(
    num=st.integers(2, 30),
    size=st.integers(5, 9),  # below, channels that come first are not told from those that come last
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 10**6),
    layouts=st.permutations(list(WRITERS)),
)
@settings(max_examples=12, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_pictures_are_one_set_in_any_two_layouts(
    tmp_path_factory: pytest.TempPathFactory, cache: Path, num: int, size: int, channels: int, seed: int, layouts: list[str]
) -> None:
    pictures = random_pictures(num, size, channels, seed, num_classes=2)
    wanted = in_memory(pictures)
    if (wanted.pixels == wanted.pixels[:, :1]).all():  # by chance without any colours
        pictures = [(label, pixels if pixels.ndim == 2 else pixels[..., 0]) for label, pixels in pictures]
        wanted = in_memory(pictures)
    for layout in layouts[:2]:
        images = opened(WRITERS[layout](tmp_path_factory.mktemp("any"), pictures))
        assert images.hash == wanted.hash
        assert torch.equal(images.pixels, wanted.pixels)


def test_mapped_and_in_memory_give_the_same_batches(tmp_path: Path, cache: Path) -> None:
    pictures = random_pictures(40, channels=3)
    mapped, held = opened(WRITERS["class folders"](tmp_path, pictures)), in_memory(pictures)
    for step in range(5):
        draw, again = Draw(3, "batch", step), Draw(3, "batch", step)
        batch = mapped.batch(draw.indices(len(mapped), 8, replacement=False))
        assert torch.equal(batch, held.batch(again.indices(len(held), 8, replacement=False)))
    assert torch.equal(torch.cat(list(mapped.batches(7))), torch.cat(list(held.batches(11))))
    assert mapped.codec(0.5) == held.codec(0.5)


@pytest.mark.skipif(not FASHION.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_what_its_teacher_was_trained_on(cache: Path) -> None:
    data = DataSection(source=str(FASHION), split="train", size=32, fit="pad", background="black", classes=FASHION_CLASSES)
    images = open_images(data)
    assert images.hash == FASHION_HASH
    assert (images.name, images.pixel_shape, len(images)) == ("fashion-mnist", (1, 32, 32), 60000)
    assert images.classes == FASHION_CLASSES
    assert findings(data)[0].classes == dict.fromkeys(FASHION_CLASSES, 6000)


def test_parts_are_chosen_by_name(tmp_path: Path, cache: Path) -> None:
    train, test = random_pictures(12), random_pictures(6, seed=1)
    source = write_idx(write_idx(tmp_path / "set", train), test, "t10k-")
    assert opened(source, split="train").hash == in_memory(train).hash
    assert opened(source, split="test").hash == in_memory(test).hash
    assert opened(source).hash == in_memory(train + test).hash
    assert findings(DataSection(source=str(source)))[0].splits == {"test": 6, "train": 12}
    with pytest.raises(DataError, match=r"has no part 'val'; choose one of test, train\."):
        opened(source, split="val")


def test_class_folders_below_train_and_test_are_parts(tmp_path: Path, cache: Path) -> None:
    train, test = random_pictures(12), random_pictures(6, seed=1)
    source = tmp_path / "set"
    write_files(source / "train", in_folders(train))
    write_files(source / "test", in_folders(test))
    zipped = write_zip(
        tmp_path / "set.zip",
        [(f"{part}/{name}", content) for part in ("train", "test") for name, content in in_folders(train)],
    )
    assert opened(source, split="train").hash == in_memory(train).hash == opened(zipped, split="test").hash
    assert opened(source).hash == in_memory(train + test).hash
    assert peek(DataSection(source=str(source))).splits == ("test", "train")


def test_shards_are_parts_by_their_names(tmp_path: Path, cache: Path) -> None:
    train, test = random_pictures(12), random_pictures(6, seed=1)
    source = tmp_path / "set"
    write_tar(source / "train-000.tar", shard_files(train[:6]))
    write_tar(source / "train-001.tar", shard_files(train[6:]))
    write_tar(source / "test-000.tar", shard_files(test))
    assert opened(source, split="train").hash == in_memory(train).hash
    assert opened(source, split="test").hash == in_memory(test).hash


def test_tables_say_their_classes_and_parts(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("pyarrow")
    pictures = random_pictures()
    images = opened(write_parquet(tmp_path / "set", pictures, ["cat", "dog", "eel"]), split="train")
    assert images.classes == ("cat", "dog", "eel")
    assert images.hash == in_memory(pictures).hash
    assert opened(write_saved(tmp_path / "saved", pictures, "train"), split="train").hash == images.hash


def test_names_come_in_their_order_whatever_the_alphabet(tmp_path: Path, cache: Path) -> None:
    names = ["Ωμέγα", "кот", "猫", "é", "Zebra"]
    files = [
        (f"{name}/{index}.png", encoded(pixels)) for index, (_, pixels) in enumerate(random_pictures(5)) for name in names
    ]
    images = opened(write_files(tmp_path / "set", files))
    assert images.classes == tuple(sorted(names))
    decomposed = write_zip(tmp_path / "set.zip", [(name.replace("é", "e\u0301"), content) for name, content in files])
    assert opened(decomposed).hash == images.hash
    assert opened(decomposed).classes == images.classes


def test_numbers_as_names_come_by_size(tmp_path: Path, cache: Path) -> None:
    pictures = [(number, pixels) for number, (_, pixels) in zip([2, 10, 100, 9], random_pictures(4), strict=True)]
    assert opened(write_files(tmp_path / "set", in_folders(pictures))).classes == ("2", "9", "10", "100")


def test_the_recipe_names_numbered_classes(tmp_path: Path, cache: Path) -> None:
    pictures = random_pictures(9)
    for layout in ("class folders", "npz", "IDX, plain", "shards, txt"):
        place = tmp_path / layout
        place.mkdir()
        images = opened(WRITERS[layout](place, pictures), classes=("cat", "dog", "eel", "fox"))
        assert images.classes == ("cat", "dog", "eel", "fox")
        assert images.hash == in_memory(pictures).hash
        assert images.prior == pytest.approx((1 / 3, 1 / 3, 1 / 3, 0))


def test_the_recipe_orders_named_classes(tmp_path: Path, cache: Path) -> None:
    names = ["bad", "good"]
    files = [
        (f"{names[label]}/{index}.png", encoded(one)) for index, (label, one) in enumerate(random_pictures(6, num_classes=2))
    ]
    images = opened(write_files(tmp_path / "set", files), classes=("good", "bad"))
    assert images.classes == ("good", "bad")
    with pytest.raises(DataError, match=r"has class 'bad', which data\.classes does not name; add it there\."):
        opened(tmp_path / "set", classes=("good", "worse"))


def test_classes_that_differ_in_channels_become_colour(tmp_path: Path, cache: Path) -> None:
    grey, colour = random_pictures(8), random_pictures(4, channels=3)
    files = in_folders([(0, pixels) for _, pixels in grey] + [(1, pixels) for _, pixels in colour])
    images = opened(write_files(tmp_path / "set", files))
    assert images.pixel_shape == (3, 6, 6)
    wanted = [(0, np.stack([pixels] * 3, -1)) for _, pixels in grey] + [(1, pixels) for _, pixels in colour]
    assert images.hash == in_memory(wanted).hash
    assert findings(DataSection(source=str(tmp_path / "set")))[0].kinds == {"grey": 8, "colour": 4}
    assert opened(tmp_path / "set", channels=1).pixel_shape == (1, 6, 6)
    assert opened(tmp_path / "set", channels=3).hash == images.hash


def test_grey_saved_as_colour_is_grey(tmp_path: Path, cache: Path) -> None:
    pictures = random_pictures()
    coloured = [(label, np.stack([pixels] * 3, -1)) for label, pixels in pictures]
    assert opened(write_npz(tmp_path / "set.npz", coloured)).hash == in_memory(pictures).hash


def test_other_files_are_ignored_and_counted(tmp_path: Path, cache: Path) -> None:
    pictures = random_pictures()
    source = write_files(tmp_path / "set", [*in_folders(pictures), ("0/notes.txt", b"-"), ("readme.md", b"-")])
    write_files(source, [("0/.DS_Store", b"-"), ("0/Thumbs.db", b"-"), (".git/config", b"-")])
    assert opened(source).hash == in_memory(pictures).hash
    assert findings(DataSection(source=str(source)))[0].ignored == 2


def test_a_packed_idx_beside_the_plain_one_is_the_same_once(tmp_path: Path, cache: Path) -> None:
    pictures = random_pictures()
    source = write_idx(tmp_path / "set", pictures, packed=False)
    for path in list(source.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert opened(source).hash == in_memory(pictures).hash
