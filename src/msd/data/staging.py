"""Decoding side by side, and bringing what comes in any order into the order of a cache, with nothing but rows in memory."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msd.data.decode import Damaged, Decoded, Decoding, as_colour, decode, measure
from msd.data.images import hash_header
from msd.data.sources.source import Entry
from msd.errors import DataError

PIXELS, LABELS, STAGED = "pixels.bin", "labels.bin", "staged.bin"
AT_A_TIME, BYTES_AT_A_TIME = 64, 2**21
"""Images, and bytes of encoded or decoded ones, that a thread takes at a time (one image, if it is larger)."""
MAX_THREADS = 16

Result = tuple[Entry, Decoded | Damaged]


def num_threads() -> int:
    """Decoders and checksums let go of Python's lock, so that threads do what processes would."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def decoded(entries: Iterable[Entry], how: Decoding) -> Iterator[Result]:
    """All entries in their order, decoded; a few chunks for each thread are in memory at any time."""
    threads = num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    pending: deque[Future[list[Result]]] = deque()
    try:
        for chunk in _chunks(entries, how):
            pending.append(pool.submit(_decode_all, chunk, how))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(entries: Iterable[Entry], how: Decoding) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    num_bytes, at_a_time = 0, 0
    for entry in entries:
        at_a_time = at_a_time or _at_a_time(entry, how)
        chunk.append(entry)
        num_bytes += entry.num_bytes
        if len(chunk) >= at_a_time or num_bytes >= BYTES_AT_A_TIME:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk


def _at_a_time(entry: Entry, how: Decoding) -> int:
    """How many images as large as they will be; the first tells where the recipe doesn't, as all must be alike then."""
    width = height = how.size or 1
    if how.size is None and not isinstance(entry.content, Damaged):
        with suppress(Damaged):
            (width, height), _ = measure(entry.content)
    return max(1, min(AT_A_TIME, BYTES_AT_A_TIME // (3 * width * height)))


def _decode_all(entries: list[Entry], how: Decoding) -> list[Result]:
    results: list[Result] = []
    for entry in entries:
        found = Entry(entry.name, entry.label, b"", entry.split)  # without what is decoded
        try:
            if isinstance(entry.content, Damaged):
                raise entry.content
            results.append((found, decode(entry.content, how)))
        except Damaged as error:
            results.append((found, error))
    return results


class Staging:
    """Rows of pixels in a temporary file, grey ones until the first colour comes; `finish` puts them into their order.

    A context, which ends with the file closed.
    """

    def __init__(self, folder: Path, channels: int | None):
        self._folder = folder
        self._stream = open(folder / STAGED, "w+b")  # noqa: SIM115 (closed on leaving the context)
        self._channels = channels or 1
        self._num_grey = 0
        self._digests = bytearray()
        self._side = 0
        self.num = 0

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of a full disk, which was told already
            self._stream.close()

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self._channels, self._side, self._side)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """An image `[1, S, S]` or `[3, S, S]`, of one S for all."""
        self._side = pixels.shape[-1]
        if len(pixels) == 3 and self._channels == 1:
            self._turn_to_colour()
        content = (as_colour(pixels) if self._channels == 3 else pixels).tobytes()
        self._stream.write(content)
        self._digests += hashlib.sha256(content).digest()
        self.num += 1

    def _turn_to_colour(self) -> None:
        """What came so far stays grey in the file, and is told apart by its place."""
        self._stream.flush()
        self._num_grey, self._channels = self.num, 3
        self._digests = bytearray()
        for index in range(self.num):
            self._digests += hashlib.sha256(self._row(index)).digest()

    def _row(self, index: int) -> bytes:
        plane = self._side**2
        descriptor = self._stream.fileno()
        if index < self._num_grey:
            content = os.pread(descriptor, plane, index * plane) * 3
        else:
            grey, size = self._num_grey * plane, self._channels * plane
            content = os.pread(descriptor, size, grey + (index - self._num_grey) * size)
        if len(content) != self._channels * plane:
            raise DataError(f"{self._folder / STAGED} was cut while it was written; give the command again.")
        return content

    def finish(self, labels: array[int]) -> str:
        """Write pixels and labels (one an image, in the order they came) by label, then by checksum; returns their hash."""
        self._stream.flush()
        numbers = np.frombuffer(labels, np.int64)
        order = _canonical(numbers, self._digests)
        digest = hashlib.sha256(hash_header(self.shape))
        with open(self._folder / PIXELS, "wb") as stream:
            for index in order:
                content = self._row(int(index))
                digest.update(content)
                stream.write(content)
        content = numbers[order].astype("<i8").tobytes()
        digest.update(content)
        (self._folder / LABELS).write_bytes(content)
        (self._folder / STAGED).unlink()
        return digest.hexdigest()


def _canonical(labels: NDArray[np.int64], digests: bytearray) -> NDArray[np.int64]:
    """The order by label, then by the sha256 of the pixels (32 bytes an image), so that the same pictures come in the same
    order from every layout."""
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    return np.lexsort((*words.T[::-1], labels)).astype(np.int64)
