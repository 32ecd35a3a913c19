"""Devices, threads, precision and processes: the only place that knows what the tensors run on and who shares the batch."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msd import checks
from msd.diffusion.draw import Slice
from msd.errors import RecipeError, RunError
from msd.recipe import Precision, RoleSection
from msd.training.ahead import Copies, PinnedCopies
from msd.training.ledger import META, AsDevices
from msd.training.roles import Role

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Engine:
    """Where a training runs, and what it computes in: bfloat16 gains nothing on CPU at small widths.

    `slice` is this process's share of every batch; one process has all of it. It takes that in `num_micro_batches` parts,
    one after the other, for a batch that does not fit into memory: to rounding, the training is the same.
    """

    device: torch.device
    slice: Slice = field(default_factory=Slice)
    num_micro_batches: int = 1
    precision: Precision = "float32"

    @classmethod
    def on(cls, device: str, threads: int | None = None) -> Engine:
        """Check that `device` exists, set CPU threads (1 to 4096), switch TF32 off. Raises RunError."""
        chosen = checks.device(device)
        if threads is not None:
            torch.set_num_threads(checks.whole(threads, "threads", 1, checks.MAX_THREADS, error=RunError))
        # TF32 keeps 10 bits of a factor, and torch allows it in convolutions unless told otherwise: pairs and scores would
        # then depend on the card.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        return cls(chosen)

    @property
    def slices(self) -> list[Slice]:
        """What this process takes of every batch, one micro-batch at a time."""
        rank, num = self.slice.rank * self.num_micro_batches, self.slice.num_ranks * self.num_micro_batches
        return [Slice(rank + number, num) for number in range(self.num_micro_batches)]

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.slice.rank == 0

    def copies(self) -> Copies | None:
        """How what a step reads gets here while the step before is computed; None where that gains nothing."""
        return PinnedCopies(self.device) if self.device.type == "cuda" else None

    def check_batch(self, batch_size: int) -> None:
        """Raises RecipeError when the processes, or one's micro-batches, cannot share a batch of that size equally."""
        if batch_size % self.slice.num_ranks:
            raise RecipeError(
                f"a batch of {batch_size} cannot be shared equally by {self.slice.num_ranks} processes; start a number of "
                "processes that divides it, or change the batch size."
            )
        checks.micro_batches(batch_size // self.slice.num_ranks, self.num_micro_batches)

    def role(self, module: Network, settings: RoleSection, num_updates: int, *, dropout: bool = False) -> Role[Network]:
        """Place `module`, replicate it over the processes, THEN give it an optimiser and an average.

        `num_updates` is how many the stage plans for it: the length of the cosine. Dropout is off unless asked for.
        """
        module = module.to(self.device).train(dropout)
        wrapped: nn.Module = module
        if self.slice.num_ranks > 1:
            wrapped = nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)
        return Role(module, wrapped, settings, num_updates)

    def backward(self, losses: Iterable[Callable[[], Tensor]], roles: Sequence[Role[Any]]) -> list[Tensor]:
        """Leave on each of `roles`, which are in turn, the clipped gradient of the loss's mean over the whole batch.

        `losses` are asked one at a time, one for each micro-batch; processes wait for each other in the last alone. Returns
        each role's norm before clipping, a scalar on the device. Precision is decided here, and the norm of a sharded
        network when that comes: no stage, loss or role knows of them.
        """
        for number, loss in enumerate(losses, 1):
            with ExitStack() as alone:
                if number < self.num_micro_batches:
                    for role in roles:
                        alone.enter_context(role.unshared())
                with self._autocast():
                    value = loss()
                (value if self.num_micro_batches == 1 else value / self.num_micro_batches).backward()
        return [nn.utils.clip_grad_norm_(role.parameters, role.settings.clip_norm) for role in roles]

    def _autocast(self) -> AbstractContextManager[Any]:
        """What forward passes are in. Weights that were cast under `no_grad` are not kept: the same weights with gradients
        would then be taken for them, and learn nothing."""
        if self.device.type == META:
            return AsDevices(self.precision)
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision), cache_enabled=False)

    def mean_over_ranks(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scalars averaged over the processes; all of them must call this at the same point."""
        if self.slice.num_ranks == 1:
            return values
        together = torch.stack([value.float() for value in values.values()])
        dist.all_reduce(together)
        return dict(zip(values, together / self.slice.num_ranks, strict=True))

    def any_rank(self, flag: bool) -> bool:
        """Whether any process says so; all of them must call this at the same point."""
        if self.slice.num_ranks == 1:
            return flag
        together = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(together, op=dist.ReduceOp.MAX)
        return bool(together)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.slice.num_ranks > 1:
            dist.barrier()


def is_main_process() -> bool:
    """Whether this process is the one that writes, as torchrun numbers them; before there is an engine, or after."""
    return _of_launcher("RANK", 0) == 0


def _of_launcher(name: str, default: int) -> int:
    """A number that torchrun gives its processes by the environment. Raises RunError."""
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise RunError(f"the environment variable {name} is {checks.shown(value)}, not a number; unset it, or use torchrun.")
    return int(value)


@contextmanager
def launched_engine(device: str, threads: int | None = None, num_micro_batches: int = 1) -> Iterator[Engine]:
    """The engine of this process: alone, or under torchrun one of the processes that share each batch. Raises RunError."""
    num_ranks, rank = _of_launcher("WORLD_SIZE", 1), _of_launcher("RANK", 0)
    if num_ranks <= 1:
        yield replace(Engine.on(device, threads), num_micro_batches=num_micro_batches)
        return
    local = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
    engine = Engine.on(local, threads)
    if engine.device.type == "cuda":
        torch.cuda.set_device(engine.device)
    dist.init_process_group("nccl" if engine.device.type == "cuda" else "gloo")
    try:
        yield Engine(engine.device, Slice(rank, num_ranks), num_micro_batches)
        gc.collect()  # a replicated module alive at exit makes gloo abort now and then
        dist.barrier()
    finally:
        dist.destroy_process_group()
