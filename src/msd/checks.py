"""What callers may give: each check returns the value in its plain type, or raises an error that says what to give instead.

Used at every public door, so that the same mistake is the same sentence on the command line, in a recipe and from Python.
torch is imported where tensors are looked at only: plans and partitions cost nothing.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msd.errors import ConditionError, MsdError, RecipeError, RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Kind = TypeVar("Kind")
Error = type[MsdError]

MAX_SEED = 2**63 - 1
"""The largest seed that torch's generators take."""
MAX_COUNT = 10**9
"""More updates, pairs or parts than anybody has; a larger number is a slip of the finger."""
MAX_BATCH = 2**20
MAX_STEPS = 10**5
MAX_THREADS = 4096
MAX_WIDTH = 2**16
"""Of what a network has: channels, blocks, groups."""
MAX_IMAGE_SIZE = 2**12
"""Pixels a side."""
MIN_SIGMA, MAX_SIGMA = 1e-6, 1e6
"""Noise levels whose squares and inverse squares float32 holds with room to spare; networks are trained on 0.002 to 80."""
MAX_LOG_DEVIATION = 10.0
"""Of ln(sigma): two of them from the middle lie beyond every noise level."""
MAX_FLOAT = 3e38
"""About the largest that float32 holds."""


def shown(value: object) -> str:
    """A value as a sentence can quote it: short, whatever it is (also numbers too long to be printed, or tensors)."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and getattr(value, "ndim", 0):
        return f"a {type(value).__name__} of shape {tuple(getattr(value, 'shape'))}"  # noqa: B009 (any array)
    try:
        return reprlib.repr(value)
    except Exception:
        return f"something of type {type(value).__name__}, too large to print"


def whole(value: object, name: str, low: int = 0, high: int | None = MAX_COUNT, *, error: Error) -> int:
    """A whole number of `low` to `high`: an int or numpy's kinds of it, never a bool or a float."""
    if type(value) is int and low <= value and (high is None or value <= high):
        return value
    among = f"from {low} to {high}" if high is not None else f"of at least {low}"
    try:
        if isinstance(value, bool) or "bool" in str(getattr(value, "dtype", "")):
            raise TypeError
        number = operator.index(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, RuntimeError) as cause:
        kind = type(value).__name__
        raise error(f"{name} {shown(value)} is of type {kind}; give a whole number {among}.") from cause
    if number < low or (high is not None and number > high):
        raise error(f"{name} {shown(number)} is out of range; give a whole number {among}.")
    return number


def seed(value: object, name: str = "seed", *, error: Error) -> int:
    return whole(value, name, 0, MAX_SEED, error=error)


def number(value: object, name: str, low: float, high: float, *, error: Error) -> float:
    """A finite number of `low` to `high`: a float or int, or numpy's kinds of them, never a bool or a word."""
    among = f"give a number from {low:g} to {high:g}"
    try:
        if isinstance(value, bool | str | bytes) or "bool" in str(getattr(value, "dtype", "")):
            raise TypeError
        found = float(value)  # pyright: ignore[reportArgumentType]
    except OverflowError as cause:
        raise error(f"{name} {shown(value)} is out of range; {among}.") from cause
    except (TypeError, ValueError, RuntimeError) as cause:
        raise error(f"{name} {shown(value)} is of type {type(value).__name__}; {among}.") from cause
    if not low <= found <= high:  # written so that a NaN fails it too
        raise error(f"{name} {found:g} is out of range; {among}.")
    return found


def sigma(value: object, name: str, *, error: Error) -> float:
    """A noise level."""
    return number(value, name, MIN_SIGMA, MAX_SIGMA, error=error)


def sigma_range(low: object, high: object, names: tuple[str, str], *, error: Error) -> None:
    """Two noise levels, the first the lower one."""
    if sigma(low, names[0], error=error) >= sigma(high, names[1], error=error):
        raise error(f"{names[0]} {low} is not below {names[1]} {high}; make the first the smaller.")


def choice(value: object, known: Collection[str], what: str, *, error: Error) -> str:
    """One of the names in a table."""
    if not isinstance(value, str) or value not in known:
        raise error(f"there is no {what} {shown(value)}; choose one of {', '.join(known)}.")
    return value


def instance(value: object, wanted: type[Kind], name: str, how: str, *, error: Error) -> Kind:
    """An object of our own; `how` says what makes one."""
    if not isinstance(value, wanted):
        raise error(f"{name} {shown(value)} is of type {type(value).__name__}, not {wanted.__name__}; {how}.")
    return value


def path(value: object, name: str, *, error: Error) -> Path:
    """A file's or folder's name, as str or Path alike."""
    if not isinstance(value, str | os.PathLike) or not isinstance(text := os.fspath(value), str):
        raise error(f"{name} {shown(value)} is of type {type(value).__name__}; give a path, as str or pathlib.Path.")
    if not text or "\0" in text:
        raise error(f"{name} {shown(text)} is no path that can exist; give a file's or folder's name.")
    return Path(text)


def items(value: object, name: str, what: str, *, error: Error) -> list[Any]:
    """The elements of a list, tuple or array; a text is not taken for a list of letters."""
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        raise error(f"{name} {shown(value)} is of type {type(value).__name__}; give a list of {what}.")
    try:
        return list(value)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise error(f"{name} {shown(value)} cannot be read as a list ({cause}); give a list of {what}.") from cause


def shape(value: object, name: str, *, error: Error) -> tuple[int, ...]:
    """The sizes of one sample, each at least 1."""
    sizes = items(value, name, "sizes, e.g. (1, 8, 8)", error=error)
    return tuple(whole(size, f"a size of {name}", 1, error=error) for size in sizes)


def class_numbers(values: object, num: int, of: str = "the partition", *, error: Error) -> Tensor:
    """Class numbers below `num`, `[N]` int64 on the CPU, of a list, an array or a tensor of whole numbers.

    Floats, bools and one-hot rows are refused by name: torch would round them, or take them for something else.
    """
    import torch

    advice = f"give whole class numbers from 0 to {num - 1}, one an image, e.g. [3, 3, 7]"
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        try:
            keys = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError) as cause:
            raise error(f"labels {shown(values)} are not numbers; {advice}.") from cause
        if keys.ndim != 1:
            what = "one-hot rows, or none a class number" if keys.ndim == 2 else "not one number an image"
            raise error(f"labels have shape {tuple(keys.shape)} ({what}); {advice}; of one-hot rows take .argmax(1).")
        if len(keys) and (keys.dtype == torch.bool or keys.is_floating_point() or keys.is_complex()):
            kind = str(keys.dtype).removeprefix("torch.")
            raise error(f"labels are of type {kind}; {advice}.")
        keys = keys.to("cpu", torch.long)
    else:
        rows = values if isinstance(values, list | tuple | range) else items(values, "labels", "class numbers", error=error)
        if any(isinstance(row, Sequence) and not isinstance(row, str) for row in rows):
            raise error(f"labels hold lists (one-hot rows?); {advice}.")
        for row in rows:
            if type(row) is not int:
                whole(row, "label", -MAX_SEED, MAX_SEED, error=error)
        outside = [row for row in rows if not 0 <= row < num]
        if outside:
            raise error(_outside(outside[0], num, of))
        keys = torch.tensor([int(row) for row in rows], dtype=torch.long)
    outside = keys[(keys < 0) | (keys >= num)]
    if len(outside):
        raise error(_outside(int(outside[0]), num, of))
    return keys


def _outside(label: int, num: int, of: str) -> str:
    return f"class {shown(label)} is outside {of}; classes are 0 to {num - 1}."


def noise(value: object, wanted: tuple[int, ...], *, error: Error = ConditionError) -> Tensor:
    """Standard-normal noise of shape `wanted` as float32; float64 is cast, other kinds and NaN or inf are refused."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise error(f"noise is of type {type(value).__name__}; give a float32 tensor of shape {wanted}.")
    if value.shape != wanted:
        raise error(f"noise has shape {tuple(value.shape)}, not {wanted}; give one sample a label.")
    if not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise error(f"noise is of type {kind}; give standard normals, as torch.randn makes them.")
    found = value.detach().float()
    if bad := num_not_finite(found):
        raise error(f"{bad} of {len(found)} samples of noise are not finite; give standard normals, as torch.randn does.")
    return found


def num_not_finite(samples: Tensor) -> int:
    """How many of `[N, ...]` hold a NaN or an infinity. Waits for the device."""
    finite = samples.isfinite()
    return 0 if bool(finite.all()) else int((~finite.reshape(len(samples), -1).all(1)).sum())


def as_device(value: object) -> torch.device:
    """A device by its name, whether it is there or not. Raises RunError."""
    import torch

    if isinstance(value, torch.device):
        return value
    if not isinstance(value, str):
        raise RunError(f"device {shown(value)} is of type {type(value).__name__}; use cpu, cuda or cuda:N.")
    try:
        return torch.device(value)
    except RuntimeError as error:
        raise RunError(f"{shown(value)} is not a device; use cpu, cuda or cuda:N.") from error


def device(value: object) -> torch.device:
    """A device that is there: cpu, cuda or cuda:N. Raises RunError; asked first, before anything is read."""
    import torch

    chosen = as_device(value)
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise RunError(f"device {value} is not supported; use cpu, cuda or cuda:N.")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise RunError(f"device {value} is not there (torch sees {torch.cuda.device_count()} GPUs); use --device cpu.")
    return chosen


def available_memory() -> int | None:
    """Bytes that could still be had, caches that can be dropped included, by what the system and a container's limit say;
    None where nothing says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            used = int((group / "memory.current").read_text(encoding="ascii"))
            kinds = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
            used -= int(kinds["inactive_file"]) + int(kinds["active_file"])
            found.append(int(limit) - used)
    except (OSError, ValueError, IndexError, KeyError):
        pass
    return max(0, min(found)) if found else None


def micro_batches(batch_size: int, num_micro_batches: int) -> None:
    """Raises RecipeError when a process cannot split its `batch_size` into `num_micro_batches` equal parts."""
    if batch_size % num_micro_batches:
        raise RecipeError(
            f"a batch of {batch_size} cannot be split into {num_micro_batches} equal micro-batches; set "
            "fleet.num_micro_batches to a number that divides it, or change the batch size."
        )


def fits_memory(num: int, bytes_each: int, what: str, advice: str, *, error: Error) -> None:
    """Refuses `num` things of `bytes_each` that would not fit into the memory there is now."""
    available = available_memory()
    if available is not None and num * bytes_each > available:
        raise error(
            f"{num:,} {what} would need about {gibibytes(num * bytes_each)} of memory and {gibibytes(available)} are "
            f"available; {advice}, at most about {available // bytes_each:,} fit."
        )


def gibibytes(num: int) -> str:
    exponent = math.log2(max(num, 1))
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20)):
        if exponent >= power:
            return f"{num / 2**power:,.1f} {unit}"
    return f"{num / 2**10:,.1f} KiB"
