"""What one evaluation of a network costs before any clock is asked: operations of arithmetic, and kernels launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.networks.build import build_unet

ALLOCATING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "dropout")
"""Operations that make room, or that compute nothing where nothing is trained."""


@dataclass(frozen=True)
class Work:
    """Of one evaluation for one sample: floating-point operations (multiplying and adding are two), and kernels."""

    num_flops: int
    num_kernels: int


def work_of(config: Mapping[str, Any], spec: DenoiserSpec) -> Work:
    """The work of a network of `config`, used as `spec` says; nothing is computed or allocated (torch's meta device).

    Kernels are the operations that reach torch's backend, views and allocations left out: what an uncompiled model launches
    one after the other, however small each is.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        denoiser = Denoiser(build_unet(dict(config)), spec).eval()
        noise, sigma = torch.empty(1, *spec.noise_shape), torch.empty(1)
        condition = torch.empty(1, dtype=torch.long)
    kernels, flops = _Kernels(), FlopCounterMode(display=False)
    with torch.inference_mode(), kernels:
        denoiser(noise, sigma, condition)
    with torch.no_grad(), flops:
        denoiser(noise, sigma, condition)
    return Work(flops.get_total_flops(), kernels.count)


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name: str = func.overloadpacket.__name__
        if isinstance(result, Tensor | tuple) and not func.is_view and name not in ALLOCATING:
            self.count += 1
        return result
