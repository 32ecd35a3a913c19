"""Streamed pairs: the same batches as from memory, and a sentence for shards that are not what they were."""

from __future__ import annotations

import os
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from builders import UNIFORM, in_memory
from msd.conditions.partition import Partition
from msd.data import shards
from msd.data.pairs import MANIFEST, PairsPlan, PairStream, make_pairs, shard_name
from msd.data.shards import open_pairs
from msd.data.streams import pair_stream
from msd.diffusion.draw import Draw, Slice
from msd.errors import DataError
from msd.files import sha256_file, write_json

SHAPE = (12, 2, 3)
"""Of folded samples: neither the channels nor the sides of an image."""


def write(folder: Path, num: int = 50, size: int = 20) -> Path:
    plan = PairsPlan(num, size, UNIFORM, 0, "x")
    make_pairs(lambda noise, keys: noise.flip(0) + keys.reshape(-1, 1, 1, 1), SHAPE, folder, plan)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs"))


@settings(max_examples=50)
@given(
    size=st.integers(1, 20), own_share=st.sampled_from([0.0, 0.3, 1.0]), replacement=st.booleans(), step=st.integers(0, 999)
)
def test_streamed_and_in_memory_pairs_give_the_same_batches(
    folder: Path, size: int, own_share: float, replacement: bool, step: int
) -> None:
    held, streamed = in_memory(folder), open_pairs(folder)
    assert torch.equal(held.keys, streamed.keys)
    found = [
        PairStream(pairs, pairs.keys % 2 == 0, batch_size=size, own_share=own_share, replacement=replacement).batch(
            Draw(3, "dm", step, slice=Slice(0, 1))
        )
        for pairs in (held, streamed)
    ]
    for name in ("noise", "keys", "samples"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name))


def test_the_samples_of_a_part_are_the_same_from_memory_and_from_the_disk(folder: Path) -> None:
    partition = Partition(((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), UNIFORM)
    streams = [pair_stream(pairs, partition, 1, 0.2) for pairs in (in_memory(folder), open_pairs(folder))]
    for one, other in zip(streams[0].batch(30, Draw(0, "tsm", 4)), streams[1].batch(30, Draw(0, "tsm", 4)), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(streams[0].held_out(), streams[1].held_out(), strict=True):
        assert torch.equal(one, other)


def test_every_pair_can_be_had_however_few_shards_are_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_MAPPED", 1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    pairs, held = open_pairs(folder), in_memory(folder)
    assert torch.equal(pairs[order].noise, held.noise[order])
    assert torch.equal(pairs.samples_of(order), held.samples[order])


def test_a_set_has_more_shards_than_a_process_may_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, num=150, size=1)
    monkeypatch.setattr(shards, "MOST_MAPPED", 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 100), hard))
    try:
        assert len(open_pairs(tmp_path)[torch.arange(150)]) == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cut(path: Path) -> None:
    os.truncate(path, 900)


def overwrite(path: Path) -> None:
    content = path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(0, 0))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut, r"shard-0001\.safetensors was changed while it was in use \(900 of [\d,]+ bytes are left\)"),
        (overwrite, r"shard-0001\.safetensors was changed while it was in use"),
        (replace, r"shard-0001\.safetensors was changed while it was in use"),
        (Path.unlink, r"shard-0001\.safetensors vanished while it was in use \(no such file or directory\)"),
    ],
)
@pytest.mark.parametrize("was_read", [False, True])
def test_a_shard_that_changes_while_it_is_in_use(
    tmp_path: Path, harm: Callable[[Path], None], words: str, was_read: bool
) -> None:
    pairs = open_pairs(write(tmp_path))
    if was_read:
        pairs[torch.arange(50)]
    harm(tmp_path / shard_name(1))
    assert len(pairs[torch.arange(20)]) == 20  # of another shard
    with pytest.raises(DataError, match=words + r"; run `msd pairs` again, which makes what is missing\."):
        pairs[torch.arange(15, 25)]


def test_a_shard_that_is_cut_while_a_process_reads_it_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """Not by a signal: the pages that are gone are not touched."""
    write(tmp_path)
    code = f"""
import os, torch
from msd.data.shards import open_pairs
from msd.errors import DataError
pairs = open_pairs({str(tmp_path)!r})
pairs[torch.arange(50)]
os.truncate({str(tmp_path / shard_name(2))!r}, 100)
try:
    pairs[torch.arange(50)]
except DataError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"shard-0002\.safetensors was changed while it was in use \(100 of", done.stdout)


def seal(folder: Path, content: bytes) -> None:
    """A list of shards by which the first one, of this content, is not damaged."""
    (folder / shard_name(0)).write_bytes(content)
    sums = {shard_name(shard): sha256_file(folder / shard_name(shard)) for shard in range(3)}
    write_json(folder / MANIFEST, {"schema": 2, "identity": "x", "num_pairs": 50, "shards": sums})


def header(text: str, rest: int = 0) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + bytes(rest)


ONE = '{{"dtype": "{}", "shape": {}, "data_offsets": {}}}'


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no header"),
        (b"\xff" * 40, "its header has no end"),
        (header("[1, 2]"), "is not a shard of pairs"),
        (header("{"), "on line 1"),
        (header('{"noise": 3}'), "is not a shard of pairs"),
        (header("{}"), "does not hold noise, keys and samples"),
        (header("\udcff".encode("utf-8", "surrogatepass").decode("latin-1")), "cannot be read"),
        (header(f'{{"noise": {ONE.format("F32", "[2]", "[0, 8]")}, "keys": {ONE.format("I64", "[1]", "[0, 8]")}, '
                f'"samples": {ONE.format("F32", "[2]", "[0, 999]")}}}', 8), "not where it says"),
        (header(f'{{"noise": {ONE.format("F64", "[1]", "[0, 8]")}, "keys": {ONE.format("I64", "[1]", "[0, 8]")}, '
                f'"samples": {ONE.format("F32", "[2]", "[0, 8]")}}}', 8), "other numbers than pairs"),
        (header(f'{{"noise": {ONE.format("F32", "[2]", "[0, 8]")}, "keys": {ONE.format("I64", "[1]", "[0, 8]")}, '
                f'"samples": {ONE.format("F32", "[2]", "[-8, 0]")}}}', 8), "not where it says"),
    ],
)  # fmt: skip
def test_what_bears_its_checksum_and_is_no_shard(tmp_path: Path, content: bytes, words: str) -> None:
    write(tmp_path)
    seal(tmp_path, content)
    with pytest.raises(DataError, match=rf"shard-0000\.safetensors .*{words}.*; run `msd pairs` again"):
        open_pairs(tmp_path)


@pytest.mark.parametrize(
    ("noise", "keys", "samples"),
    [((20, 4), (20,), (20, 4)), ((20, *SHAPE), (19,), (20, *SHAPE)), ((20, *SHAPE), (20,), (19, *SHAPE)), ((), (), ())],
)
def test_shards_of_other_shapes_do_not_fit(
    tmp_path: Path, noise: tuple[int, ...], keys: tuple[int, ...], samples: tuple[int, ...]
) -> None:
    write(tmp_path)
    tensors = {"noise": torch.zeros(noise), "keys": torch.zeros(keys, dtype=torch.long), "samples": torch.zeros(samples)}
    save_file(tensors, tmp_path / "one")
    seal(tmp_path, (tmp_path / "one").read_bytes())
    with pytest.raises(
        DataError, match=r"shard-000\d\.safetensors does not fit to the other shards; remove pairs.json, and"
    ):
        open_pairs(tmp_path)
