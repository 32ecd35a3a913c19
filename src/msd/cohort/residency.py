"""`Residency`: what is kept in memory, loaded when first asked for, the least recently used let go above a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from msd import checks
from msd.errors import WeightsError

Key = TypeVar("Key", bound=Hashable)
Held = TypeVar("Held")


@dataclass
class _Place(Generic[Held]):
    """One thing in memory, or on its way there."""

    nbytes: int
    held: Future[Held] = field(default_factory=Future)
    num_users: int = 0


class Residency(Generic[Key, Held]):
    """Things by key, loaded by `load(key)` on first use. Any number of threads may borrow at once; each is loaded once.

    Room for `size(key)` bytes is made before loading, so that the total stays within `max_bytes` (None: no limit) at all
    times, but for what is in use: that is never let go, nor is the thing just asked for. Raises WeightsError for a limit
    that is no whole number of bytes.
    """

    def __init__(self, load: Callable[[Key], Held], size: Callable[[Key], int], max_bytes: int | None = None):
        if max_bytes is not None:
            checks.whole(max_bytes, "max_bytes", 0, None, error=WeightsError)
        self._load, self._size, self._max_bytes = load, size, max_bytes
        self._places: OrderedDict[Key, _Place[Held]] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()  # never held while something loads

    @property
    def resident(self) -> tuple[Key, ...]:
        """What is in memory now, the least recently used first."""
        with self._lock:
            return tuple(self._places)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._total()

    @contextmanager
    def borrow(self, key: Key) -> Iterator[Held]:
        """The thing itself, kept in memory for as long as the block lasts. Raises whatever `load` does, anew each time."""
        place, is_mine = self._claim(key)
        try:
            if is_mine:
                self._fill(key, place)
            yield place.held.result()
        finally:
            with self._lock:
                place.num_users -= 1
                self._make_room(0)

    def _claim(self, key: Key) -> tuple[_Place[Held], bool]:
        """The key's place, marked as in use, and whether the caller is the one to fill it."""
        with self._lock:
            place = self._places.get(key)
            is_new = place is None
            if place is None:
                place = _Place(self._size(key))
                self._make_room(place.nbytes)
                self._places[key] = place
            place.num_users += 1
            self._places.move_to_end(key)
            return place, is_new

    def _fill(self, key: Key, place: _Place[Held]) -> None:
        try:
            place.held.set_result(self._load(key))
        except BaseException as error:
            with self._lock:  # first, so that whoever asks from now on tries again
                del self._places[key]
            place.held.set_exception(error)

    def _make_room(self, nbytes: int) -> None:
        """Let go of what nobody uses, least recent first, until `nbytes` more fit; the newest stays if nothing comes."""
        if self._max_bytes is None:
            return
        candidates = list(self._places) if nbytes else list(self._places)[:-1]
        for key in candidates:
            if self._total() + nbytes <= self._max_bytes:
                return
            if self._places[key].num_users == 0:
                del self._places[key]

    def _total(self) -> int:
        return sum(place.nbytes for place in self._places.values())
