"""Images are decoded once, kept whole or not at all, and made again when anything is not as it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from data.layouts import in_folders, random_pictures, write_files, write_idx
from msd.caches import cache_folder
from msd.data import making
from msd.data.cache import findings, open_images, slug
from msd.data.images import load_images
from msd.errors import DataError, MsdError
from msd.recipe import DataSection


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "My Söurce", in_folders(random_pictures()))


def only(cache: Path) -> Path:
    (folder,) = (cache / "images").iterdir()
    return folder


def undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "decoded", lambda *_: pytest.fail("the images were decoded again"))


def test_what_has_not_changed_is_not_decoded_again(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataSection(source=str(source), name="mine")
    first, (found, _) = open_images(data), findings(data)
    undecodable(monkeypatch)
    again = open_images(data)
    assert again.hash == first.hash == found.hash
    assert torch.equal(again.pixels, first.pixels)
    assert (again.name, again.classes) == ("mine", ("0", "1", "2"))
    assert found.classes == {"0": 4, "1": 4, "2": 4}
    assert (found.sizes, found.kinds, found.channels, found.damaged) == ({"6x6": 12}, {"grey": 12}, 1, ())
    renamed = open_images(data.model_copy(update={"name": "other", "licence": "CC0", "prior": "uniform"}))
    assert (renamed.name, renamed.licence, renamed.is_uniform) == ("other", "CC0", True)


def test_the_known_hash_is_the_one_that_is_computed(source: Path, cache: Path) -> None:
    images = load_images(DataSection(source=str(source), prior="uniform"))
    assert images.known_hash == images.hash
    object.__setattr__(images, "known_hash", "")
    del images.__dict__["hash"]
    assert images.hash == open_images(DataSection(source=str(source))).hash
    assert images.prior == (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize(
    "values", [{"size": 8}, {"size": 8, "fit": "pad"}, {"channels": 3}, {"classes": ("a", "b", "c")}, {"skip_damaged": True}]
)
def test_another_way_of_decoding_is_another_cache(source: Path, cache: Path, values: dict[str, Any]) -> None:
    open_images(DataSection(source=str(source)))
    open_images(DataSection(source=str(source), **values))
    assert len(list((cache / "images").iterdir())) == 2


def test_a_changed_source_is_another_set(source: Path, cache: Path) -> None:
    data = DataSection(source=str(source))
    first = open_images(data)
    path = source / "0" / "image 0.png"
    times = path.stat()
    other = (source / "1" / "image 1.png").read_bytes()
    path.write_bytes(other)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    changed = open_images(data)
    assert changed.hash != first.hash
    assert len(list((cache / "images").iterdir())) == 2


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def reworded(path: Path) -> None:
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"classes": ["x", "y", "z"]}))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a pixel": lambda at: flipped(at / "pixels.bin"),
    "a label": lambda at: flipped(at / "labels.bin"),
    "pixels cut": lambda at: os.truncate(at / "pixels.bin", 100),
    "pixels gone": lambda at: (at / "pixels.bin").unlink(),
    "pixels a pipe": lambda at: ((at / "pixels.bin").unlink(), os.mkfifo(at / "pixels.bin"))[0],
    "labels gone": lambda at: (at / "labels.bin").unlink(),
    "no description": lambda at: (at / "images.json").unlink(),
    "half a description": lambda at: os.truncate(at / "images.json", 300),
    "other classes": lambda at: reworded(at / "images.json"),
    "another version": lambda at: (at / "images.json").write_text('{"schema": 0}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_told_and_made_again(
    damage: str, source: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataSection(source=str(source))
    first = open_images(data)
    DAMAGES[damage](only(cache))
    again = open_images(data)
    assert again.hash == first.hash
    assert torch.equal(again.pixels, open_images(data).pixels)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("Warning: ")
    assert warning.endswith("; the images are decoded again.")
    undecodable(monkeypatch)
    open_images(data)
    assert sorted(path.name for path in only(cache).iterdir()) == ["images.json", "labels.bin", "pixels.bin"]


def test_a_cache_that_is_cut_while_it_is_in_use_is_a_sentence(source: Path, cache: Path) -> None:
    """Not the signal that ends a process which reads mapped pages that are gone."""
    images = open_images(DataSection(source=str(source)))
    os.truncate(only(cache) / "pixels.bin", 1)
    for read in (lambda: images.batch(torch.tensor([0])), lambda: list(images.batches(2)), lambda: images.codec(0.5)):
        with pytest.raises(
            DataError, match=r"pixels\.bin was changed while it was in use \(1 of [\d,]+ bytes are left\); give"
        ):
            read()


def test_an_open_set_outlives_its_cache(source: Path, cache: Path) -> None:
    """Whoever trains on it goes on, though another process makes it again or removes it."""
    images = open_images(DataSection(source=str(source)))
    kept = images.pixels.clone()
    flipped(only(cache) / "labels.bin")
    open_images(DataSection(source=str(source)))
    for path in only(cache).iterdir():
        path.unlink()
    assert torch.equal(images.pixels, kept)


def started(source: Path, answer: Path, most_bytes: int | None = None) -> BaseProcess:
    """Another process that opens the images and writes down their hash, or what it was told."""

    def work() -> None:
        if most_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        try:
            answer.write_text(open_images(DataSection(source=str(source))).hash)
        except MsdError as error:
            answer.write_text(f"{type(error).__name__} {error}")

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_two_processes_at_once_end_with_the_same_whole_cache(source: Path, tmp_path: Path, cache: Path) -> None:
    answers = [tmp_path / "first", tmp_path / "second"]
    for process in [started(source, answer) for answer in answers]:
        process.join(120)
    assert {answer.read_text() for answer in answers} == {open_images(DataSection(source=str(source))).hash}
    assert sorted(path.name for path in only(cache).iterdir()) == ["images.json", "labels.bin", "pixels.bin"]


def test_two_threads_at_once_do_not_meet(source: Path, cache: Path) -> None:
    hashes: list[str] = []
    threads = [
        threading.Thread(target=lambda: hashes.append(open_images(DataSection(source=str(source))).hash)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashes == [open_images(DataSection(source=str(source))).hash] * 4


def test_a_killed_process_leaves_nothing_that_stays(tmp_path: Path, cache: Path) -> None:
    source = write_files(tmp_path / "set", in_folders(random_pictures(600)))
    process = started(source, tmp_path / "answer")
    deadline = time.monotonic() + 60
    while not list(cache.rglob("staged.bin")) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join(60)
    images = open_images(DataSection(source=str(source)))
    assert len(images) == 600
    assert only(cache).name.startswith("set-")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    source = write_files(tmp_path / "set", in_folders(random_pictures(100, size=20)))
    started(source, tmp_path / "answer", most_bytes=20_000).join(120)
    said = (tmp_path / "answer").read_text()
    assert said.startswith(f"RunError {cache}")
    assert "raise the limit (ulimit -f), and the same command goes on." in said
    assert list((cache / "images").iterdir()) == []
    assert len(open_images(DataSection(source=str(source)))) == 100


def test_a_cache_that_cannot_be_written_names_the_variable(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written \(.*\); set MSD_CACHE to a folder for caches of images\."):
        open_images(DataSection(source=str(source)))


def test_the_cache_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MSD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "msd"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "msd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "msd"
    monkeypatch.setenv("MSD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize(
    ("path", "name"),
    [("My Söurce", "my-source"), ("a.b/Fashion_MNIST.tar.gz", "fashion-mnist"), ("猫.zip", "images"), ("x" * 90, "x" * 40)],
)
def test_a_set_is_named_after_its_source(path: str, name: str, tmp_path: Path) -> None:
    assert slug(tmp_path / path) == name


def test_packaged_images_have_no_cache(cache: Path) -> None:
    with pytest.raises(DataError, match=r"packaged:digits comes with msd and has no cache; give the path"):
        open_images(DataSection())


def test_memory_does_not_grow_with_the_set(tmp_path: Path, cache: Path) -> None:
    peaks = []
    for num in (400, 4000):
        source = write_idx(tmp_path / f"set-{num}", random_pictures(num, size=32, channels=3))
        tracemalloc.start()
        open_images(DataSection(source=str(source)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3 * 2**20  # the pixels are 11 MiB more


def test_progress_ends_with_all_of_them(tmp_path: Path, cache: Path) -> None:
    source, told = write_idx(tmp_path / "set", random_pictures(600)), []
    open_images(DataSection(source=str(source)), lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600), (600, 600)]
