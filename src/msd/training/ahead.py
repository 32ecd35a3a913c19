"""What a step reads, read a step ahead where a device would wait for the disk: the same draws, so the same training.

On the CPU a step reads when it needs to, in its own thread: there is nobody to wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from msd.diffusion.draw import Draw, Slice

Read = TypeVar("Read")
CPU = torch.device("cpu")
Draws = Callable[[int], list[Draw]]
"""The draws of a step, one for each of this process's slices."""


class Reads(Generic[Read]):
    """What the steps of a stage begin with: `fetch` draws and reads it, tensors on the CPU in tuples and dataclasses.

    It is a function of the draw alone and changes nothing, so a step's may be fetched before the step before has ended.
    """

    def __init__(self, fetch: Callable[[Draw], Read]):
        self.fetch = fetch
        self._fetched: dict[Slice, Read] = {}

    def __call__(self, draw: Draw) -> Read:
        """The step's, on the device of its `draw`, which goes on after what `fetch` drew. Asked once a step and slice."""
        if draw.slice in self._fetched:
            return self._fetched.pop(draw.slice)
        return each_tensor(self.fetch(draw.on(CPU)), lambda one: one.to(draw.device))

    def keep(self, draw: Draw, read: Read) -> None:
        """What was fetched for `draw`, until it is asked for."""
        self._fetched[draw.slice] = read

    def forget(self) -> None:
        self._fetched.clear()


class Copies(Protocol):
    """How what was fetched gets onto a device: sent from one thread, received in another."""

    def send(self, read: Any) -> Any: ...

    def receive(self, sent: Any) -> Any: ...


class PinnedCopies:
    """Onto a CUDA device from pinned memory, on a stream of their own, beside what the device computes."""

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)

    def send(self, read: Any) -> tuple[Any, torch.cuda.Event]:
        done = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            copied = each_tensor(read, lambda one: one.pin_memory().to(self._device, non_blocking=True))
            done.record(self._stream)
        return copied, done

    def receive(self, sent: tuple[Any, torch.cuda.Event]) -> Any:
        copied, done = sent
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)

        def used(one: Tensor) -> Tensor:
            one.record_stream(current)  # else its memory may be given away while this stream still reads it
            return one

        return each_tensor(copied, used)


@contextmanager
def reading_ahead(reads: Reads[Any] | None, draws: Draws, num_steps: int, copies: Copies | None) -> Iterator[Draws]:
    """Yield `draws`, or what stands in for it: a step's draws, with what the step reads fetched and sent, while another
    thread fetches the next one's, none beyond `num_steps`. Only one is ever ahead, and a stop loses nothing: a step's draws
    are a function of its number."""
    if reads is None or copies is None:
        yield draws
        return
    ahead: dict[int, Future[list[tuple[Draw, Any]]]] = {}

    def fetch(step: int) -> list[tuple[Draw, Any]]:
        return [(draw, copies.send(reads.fetch(draw.on(CPU)))) for draw in draws(step)]

    def of(step: int) -> list[Draw]:
        found = (ahead.pop(step, None) or thread.submit(fetch, step)).result()
        if step + 1 < num_steps:
            ahead[step + 1] = thread.submit(fetch, step + 1)
        for draw, sent in found:
            reads.keep(draw, copies.receive(sent))
        return [draw for draw, _ in found]

    thread = ThreadPoolExecutor(1, thread_name_prefix="reading-ahead")
    try:
        yield of
    finally:
        thread.shutdown(cancel_futures=True)
        reads.forget()


def each_tensor(read: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure of tuples and dataclasses, with every tensor in it changed."""
    if isinstance(read, Tensor):
        return change(read)
    if isinstance(read, tuple):
        return tuple(each_tensor(one, change) for one in read)
    if is_dataclass(read) and not isinstance(read, type):
        return replace(read, **{one.name: each_tensor(getattr(read, one.name), change) for one in fields(read)})
    return read
