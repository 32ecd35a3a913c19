"""What one evaluation of a network costs before any clock is asked: operations of arithmetic, and kernels launched."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from msd.diffusion.codec import Shape
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.networks.adapter import adapter_of
from msd.networks.heads import Head
from msd.networks.kinds import BUILDERS
from msd.networks.taps import Tap

ALLOCATING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "dropout")
"""Operations that make room, or that compute nothing where nothing is trained."""


@dataclass(frozen=True)
class Work:
    """Of one evaluation for one sample: floating-point operations (multiplying and adding are two), and kernels."""

    num_flops: int
    num_kernels: int


def work_of(kind: str, config: Mapping[str, Any], spec: DenoiserSpec) -> Work:
    """The work of a network of that kind and `config`, used as `spec` says; on torch's meta device, which computes nothing.

    Kernels are the operations that reach torch's backend, views and allocations left out: what an uncompiled model launches
    one after the other, however small each is.
    """
    denoiser, inputs = _weightless(kind, config, spec)
    kernels, flops = _Kernels(), FlopCounterMode(display=False)
    with torch.inference_mode(), kernels:
        denoiser(*inputs)
    with torch.no_grad(), flops:
        denoiser(*inputs)
    return Work(flops.get_total_flops(), kernels.count)


def forward_flops(denoiser: Denoiser) -> int:
    """Operations of one evaluation for one sample. Raises WeightsError for a network that is not one of ours to save."""
    network = adapter_of(denoiser)
    return denoiser.num_evaluations * _flops_of(network.kind, json.dumps(network.config(), sort_keys=True), denoiser.spec)


@lru_cache(maxsize=64)
def _flops_of(kind: str, config: str, spec: DenoiserSpec) -> int:
    """Kept, as every stage of a job and every row asks for the same networks."""
    denoiser, inputs = _weightless(kind, json.loads(config), spec)
    flops = FlopCounterMode(display=False)
    with torch.no_grad(), flops:
        denoiser(*inputs)
    return flops.get_total_flops()


def flops_to_tap(denoiser: Denoiser, tap: str) -> int:
    """Operations, of one evaluation for one sample, after which the features at `tap` (`networks.taps`) are there.

    Raises RecipeError for a tap that there is not, WeightsError as `forward_flops` does.
    """
    network = adapter_of(denoiser)
    weightless, inputs = _weightless(network.kind, network.config(), denoiser.spec)
    flops, seen = FlopCounterMode(display=False), list[int]()
    place = Tap(weightless, tap).place
    place.register_forward_hook(lambda *_: seen.append(flops.get_total_flops()))
    with torch.no_grad(), flops:
        weightless(*inputs)
    return seen[0] + (denoiser.num_evaluations - 1) * flops.get_total_flops()


def flops_of_head(head: Head, shape: Shape) -> int:
    """Operations by which a discriminator's head judges one sample's features of `shape`."""
    weightless, flops = copy.deepcopy(head).to("meta"), FlopCounterMode(display=False)
    with torch.no_grad(), flops:
        weightless(torch.empty(1, *shape, device="meta"), torch.empty(1, dtype=torch.long, device="meta"))
    return flops.get_total_flops()


def weightless(kind: str, config: Mapping[str, Any], spec: DenoiserSpec) -> Denoiser:
    """A denoiser on torch's meta device: shapes without content, which cost neither time nor memory."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return Denoiser(BUILDERS[kind](dict(config)), spec).eval()


def _weightless(kind: str, config: Mapping[str, Any], spec: DenoiserSpec) -> tuple[Denoiser, tuple[Tensor, Tensor, Tensor]]:
    """A denoiser on torch's meta device, and one sample to call it with."""
    with torch.device("meta"):
        inputs = (torch.empty(1, *spec.noise_shape), torch.empty(1), torch.empty(1, dtype=torch.long))
    return weightless(kind, config, spec), inputs


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
