"""What a computation holds in memory, found without computing: it is taken on torch's meta device, whose tensors have
shapes and no content; every storage is entered when an operation makes it, and struck out when nothing refers to it any
more.

Counted is what tensors hold. What a kernel takes for itself while it runs, and what an allocator keeps back, is not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from msd.recipe import Precision

META = "meta"


@dataclass
class Moments:
    """Bytes in memory after each operation: of everything that was made since the ledger was opened, and, of that, of
    gradients that have arrived at their parameters."""

    live: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)


class Ledger(TorchDispatchMode):
    """Enters and strikes out while it is open (`with Ledger() as ledger`); `moments` can be exchanged for fresh ones."""

    def __init__(self) -> None:
        super().__init__()
        self.moments = Moments()
        self.live = self.gradients = 0
        self._known: dict[int, int] = {}

    def watch_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Tell gradients that arrive at these from everything else."""
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._arrived)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for given in _tensors((args, tuple(kwargs.values()))):
            if _key(given) not in self._known:
                self._enter(given, 0)  # made before the ledger was opened: not its business
        result = func(*args, **kwargs)
        for made in _tensors(result):
            if _key(made) not in self._known:
                self._enter(made, made.untyped_storage().nbytes())
                self._note()
        return result

    def _enter(self, tensor: Tensor, size: int) -> None:
        storage, key = tensor.untyped_storage(), _key(tensor)
        self._known[key] = size
        self.live += size
        # Struck out when it is gone, of whatever size: its key may be another's then.
        weakref.finalize(storage, self._strike_out, key).atexit = False

    def _strike_out(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)

    def _arrived(self, parameter: Tensor) -> None:
        # With several micro-batches it arrives as often, into one place.
        if parameter.grad is not None and not getattr(parameter.grad, "_entered", False):
            parameter.grad._entered = True  # pyright: ignore[reportAttributeAccessIssue]
            size = parameter.grad.untyped_storage().nbytes()
            self.gradients += size
            weakref.finalize(parameter.grad.untyped_storage(), self._gradient_gone, size).atexit = False
            self._note()

    def _gradient_gone(self, size: int) -> None:
        self.gradients -= size

    def _note(self) -> None:
        self.moments.live.append(self.live)
        self.moments.gradients.append(self.gradients)


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        if value.device.type == META:
            yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


LOWERED = {"conv1d", "conv2d", "conv3d", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention"}
RAISED = {"group_norm", "layer_norm", "softmax", "mse_loss"}
"""Of the operations that networks here consist of, those that CUDA's autocast takes in bfloat16, and those in float32."""


class AsDevices(TorchFunctionMode):
    """Has the meta device do what real devices do: attention by a kernel that keeps no matrix of scores, and, where the
    precision is not float32, autocast (without a cache of weights, as `Engine` asks for it)."""

    def __init__(self, precision: Precision):
        super().__init__()
        self._lowered = None if precision == "float32" else getattr(torch, precision)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        wanted = self._lowered if name in LOWERED else torch.float32 if name in RAISED else None
        if self._lowered is not None and wanted is not None:
            args = tuple(_cast(one, wanted) for one in args)
            kwargs = {key: _cast(one, wanted) for key, one in kwargs.items()}
        if name == "scaled_dot_product_attention":
            return _attention(func, *args, **kwargs)
        return func(*args, **kwargs)


def _cast(value: Any, wanted: torch.dtype) -> Any:
    return value.to(wanted) if isinstance(value, Tensor) and value.is_floating_point() else value


def _attention(func: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
    if query.device.type != META or more.get("attn_mask") is not None:
        return func(query, key, value, **more)
    # Query, key, value, answer and one number a row are kept, as by the kernels of CPUs and GPUs.
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]
