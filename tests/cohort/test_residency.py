"""What is in memory: loaded once however many ask, the least recently used gone first, never what is in use."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msd.cohort.residency import Residency


def sized(loads: list[int] | None = None, max_bytes: int | None = None) -> Residency[int, str]:
    """Key k takes k bytes and is called by its number; `loads` notes what was loaded."""

    def load(key: int) -> str:
        if loads is not None:
            loads.append(key)
        return str(key)

    return Residency(load, lambda key: key, max_bytes)


def ask(residency: Residency[int, str], *keys: int) -> None:
    for key in keys:
        with residency.borrow(key) as held:
            assert held == str(key)


def test_nothing_is_loaded_before_it_is_asked_for_and_then_once() -> None:
    loads: list[int] = []
    residency = sized(loads)
    assert residency.resident == ()
    ask(residency, 3, 1, 3, 3)
    assert loads == [3, 1]
    assert residency.resident == (1, 3)
    assert residency.nbytes == 4


def test_the_least_recently_used_goes_first() -> None:
    residency = sized(max_bytes=9)
    ask(residency, 2, 3, 4, 2)
    assert residency.resident == (3, 4, 2)
    ask(residency, 5)
    assert residency.resident == (2, 5)


def test_room_is_made_before_loading() -> None:
    """Else the limit would be passed by one student while it loads, which is when memory runs out."""
    during = []
    residency: Residency[int, int] = Residency(lambda key: during.append(residency.resident) or key, lambda key: key, 5)
    for key in (3, 2, 4):
        with residency.borrow(key):
            pass
    assert during == [(3,), (3, 2), (4,)]


def test_what_is_in_use_stays_and_goes_when_it_is_given_back() -> None:
    residency = sized(max_bytes=5)
    with residency.borrow(4), residency.borrow(3), residency.borrow(2):
        assert residency.resident == (4, 3, 2)
    assert residency.resident == (2,)


def test_one_that_is_larger_than_the_limit_is_kept_until_another_comes() -> None:
    residency = sized(max_bytes=5)
    ask(residency, 9)
    assert residency.resident == (9,)
    ask(residency, 2)
    assert residency.resident == (2,)


@given(st.lists(st.integers(1, 8), max_size=40), st.integers(1, 20))
def test_the_limit_holds_after_any_requests(keys: list[int], limit: int) -> None:
    """At most the limit, or the last one asked for alone; and that one is always there."""
    residency = sized(max_bytes=limit)
    for key in keys:
        ask(residency, key)
        assert residency.resident[-1] == key
        assert residency.nbytes <= limit or residency.resident == (key,)


def test_many_threads_load_each_thing_once_and_side_by_side() -> None:
    """Two keys whose loading waits for each other: a lock around loading would never end."""
    both, loads = threading.Barrier(2, timeout=10), []

    def load(key: int) -> int:
        loads.append(key)
        both.wait()
        return key

    residency = Residency(load, lambda key: 1)

    def borrow(key: int) -> int:
        with residency.borrow(key) as held:
            return held

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(borrow, [0, 1] * 20)) == [0, 1] * 20
    assert sorted(loads) == [0, 1]


def test_threads_under_a_tight_limit_always_hold_what_they_asked_for() -> None:
    residency = sized(max_bytes=3)

    def borrow_often(first: int) -> None:
        for number in range(200):
            ask(residency, (first + number) % 4 + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(borrow_often, range(4)))
    assert residency.nbytes <= 4


def test_a_failure_is_told_to_all_who_wait_and_tried_again_by_the_next() -> None:
    started, go = threading.Event(), threading.Event()
    outcomes = iter([ValueError("damaged"), None])

    def load(key: int) -> str:
        started.set()
        go.wait(10)
        if error := next(outcomes):
            raise error
        return "mended"

    residency = Residency(load, lambda key: 1)

    def attempt() -> str:
        try:
            with residency.borrow(0) as held:
                return held
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(attempt)
        started.wait(10)
        second = pool.submit(attempt)
        while residency.resident and not second.running():
            pass
        go.set()
        assert first.result() == "damaged"
        assert second.result() in ("damaged", "mended")
    assert attempt() == "mended"


def test_an_error_in_the_block_gives_it_back_all_the_same() -> None:
    residency = sized(max_bytes=3)
    with pytest.raises(ZeroDivisionError), residency.borrow(3):
        raise ZeroDivisionError
    ask(residency, 2)
    assert residency.resident == (2,)
