"""Randomness as a function of (seed, place, step), never of what was drawn before: nothing to save, nothing to restore."""

from __future__ import annotations

import hashlib
import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from msd import checks
from msd.errors import ConditionError, RecipeError


@dataclass(frozen=True)
class Slice:
    """Which rows of a global batch are this process's: the `rank`-th of `num_ranks` equal, consecutive blocks."""

    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        """Raises RecipeError."""
        num = checks.whole(self.num_ranks, "the number of processes", 1, error=RecipeError)
        checks.whole(self.rank, "rank", 0, num - 1, error=RecipeError)

    def of(self, rows: Tensor) -> Tensor:
        size = len(rows) // self.num_ranks
        return rows if self.num_ranks == 1 else rows[self.rank * size : (self.rank + 1) * size]


@dataclass(frozen=True)
class Draw:
    """The random numbers of one step of one stage (`place`), a fixed sequence for (seed, place, step, attempt).

    Each call draws the GLOBAL batch on the CPU and returns this process's `slice` of it on `device`. So step n needs no step
    n-1, and the numbers do not depend on the device or on how many processes share the batch. `attempt` counts roll-backs of
    a step: another attempt gets other numbers.

    `seed` is of 0 to 2^63 - 1, step and attempt count from 0. Raises RecipeError for others, and for numbers of samples
    below 0 or weights that are none.
    """

    seed: int
    place: str
    step: int = 0
    attempt: int = 0
    slice: Slice = Slice()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        checks.seed(self.seed, error=RecipeError)
        checks.instance(self.place, str, "place", "name what draws", error=RecipeError)
        checks.whole(self.step, "step", error=RecipeError)
        checks.whole(self.attempt, "attempt", error=RecipeError)
        checks.instance(self.slice, Slice, "slice", "give a Slice", error=RecipeError)
        object.__setattr__(self, "device", checks.as_device(self.device))

    @cached_property
    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, self.place, self.step, self.attempt))

    def on(self, device: torch.device) -> Draw:
        """This very sequence, from where it is, on another device: what one of the two draws, the other skips."""
        if device == self.device:
            return self
        other = replace(self, device=device)
        other.__dict__["_generator"] = self._generator
        return other

    def normal(self, num: int, *shape: int) -> Tensor:
        """Standard normals `[num / num_ranks, *shape]` float32."""
        sizes = checks.shape(shape, "shape", error=RecipeError)
        return self.mine(torch.randn(_num(num), *sizes, generator=self._generator))

    def uniform(self, num: int) -> Tensor:
        """Uniforms in [0, 1), `[num / num_ranks]` float32."""
        return self.mine(torch.rand(_num(num), generator=self._generator))

    def choice(self, weights: Tensor, num: int) -> Tensor:
        """Indices `[num / num_ranks]` int64 drawn with replacement by `weights` `[M]`, which lie on the CPU."""
        if not _num(num):
            return self.mine(torch.empty(0, dtype=torch.long))
        try:
            return self.mine(torch.multinomial(weights, num, replacement=True, generator=self._generator))
        except (RuntimeError, TypeError, IndexError) as error:
            raise RecipeError(
                f"weights {checks.shown(weights)} are no distribution; give floats of at least 0, finite, one above 0."
            ) from error

    def indices(self, high: int, num: int, *, replacement: bool) -> Tensor:
        """The GLOBAL `num` indices in 0..high-1, `[num]` int64 on the CPU: pass what is made of them to `mine`."""
        high = checks.whole(high, "the number to draw from", 1, error=RecipeError)
        checks.whole(num, "the number of draws", 0, None if replacement else high, error=RecipeError)
        if replacement:
            return torch.randint(high, (num,), generator=self._generator)
        return torch.randperm(high, generator=self._generator)[:num]

    def mine(self, rows: Tensor) -> Tensor:
        """This process's slice of a global batch, on `device`."""
        return self.slice.of(rows).to(self.device)

    @contextmanager
    def inside_modules(self, *, needed: bool = True) -> Iterator[None]:
        """For modules that draw by themselves (dropout): torch's global generators, seeded for this step and process."""
        if not needed:
            yield
            return
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derived_seed(self.seed, self.place, self.step, self.attempt, "modules", self.slice.rank))
            yield


def _num(num: int) -> int:
    return checks.whole(num, "the number of samples", error=RecipeError)


def derived_seed(*parts: object) -> int:
    """A 63-bit seed from words and numbers: the same on every machine, unrelated for unequal parts.

    Raises RecipeError for other things, whose print may differ from process to process.
    """
    for part in parts:
        if not isinstance(part, str | numbers.Real) or part != part:
            raise RecipeError(f"{checks.shown(part)} is no word and no number; derive a seed from those.")
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def image_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard-normal noise `[len(seeds), *shape]` on the CPU, each image from a generator of its own seed.

    So an image's noise depends on its own seed alone, not on its batch, its place in it, or who else asked. Seeds are whole
    numbers of 0 to 2^63 - 1. Raises ConditionError for others, and for more noise than fits into memory.
    """
    error = ConditionError
    shape = checks.shape(shape, "the noise's shape", error=error)
    seeds = seeds if isinstance(seeds, range) else checks.items(seeds, "seeds", "whole numbers", error=error)
    checks.fits_memory(len(seeds), 4 * math.prod(shape), "samples of noise", "ask for fewer at a time", error=error)
    generator = torch.Generator()
    noise = torch.empty(len(seeds), *shape)
    for image, seed in zip(noise, seeds, strict=True):
        generator.manual_seed(checks.seed(seed, error=error))
        image.normal_(generator=generator)
    return noise


def noise_by_step(seeds: Sequence[int], shape: Sequence[int]) -> Callable[[int], Tensor]:
    """`step -> noise [len(seeds), *shape]`, what a stochastic solver adds in its steps: standard normals on the CPU.

    An image's is a function of its own seed and the step, unrelated to the `image_noise` of that seed, so the image does not
    depend on its batch. Raises ConditionError for what are no seeds or no shape.
    """
    error = ConditionError
    given = seeds if isinstance(seeds, range) else checks.items(seeds, "seeds", "whole numbers", error=error)
    own, sizes = [checks.seed(seed, error=error) for seed in given], checks.shape(shape, "the noise's shape", error=error)
    return lambda step: image_noise([derived_seed(seed, "step", step) for seed in own], sizes)
