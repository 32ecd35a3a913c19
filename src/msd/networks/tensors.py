"""Reading and writing safetensors files: whatever is wrong with one is a sentence, and no file is waited for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msd.errors import MsdError, WeightsError
from msd.reading import open_regular, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def load_tensors(path: Path, remedy: str, error: type[MsdError] = WeightsError) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU. Raises `error` ending in `remedy`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        open_regular(path).close()
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as cause:
        raise error(f"{path} cannot be read as safetensors ({reason(cause)}); {remedy}.") from cause


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one file of tensors, none of which share memory; the caller makes it atomic."""
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path)
    share(path)


def share(path: Path) -> None:
    """Let others read a file as the process's umask says: safetensors writes for its owner alone, and servers may run as
    somebody else."""
    path.chmod(0o666 & ~_UMASK)


def _umask() -> int:
    """As it is when msd begins: asking sets it for a moment, for all threads."""
    found = os.umask(0)
    os.umask(found)
    return found


_UMASK = _umask()


def num_values(path: Path, remedy: str) -> int:
    """How many numbers all tensors of a file hold, by its header alone. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()
        with safe_open(path, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 (not a dict)
    except (OSError, ValueError, TypeError, SafetensorError) as cause:
        raise WeightsError(f"{path} cannot be read as safetensors ({reason(cause)}); {remedy}.") from cause


def load_array(path: Path, name: str, remedy: str) -> NDArray | None:
    """One tensor of a file, without torch; None where the file has none of that name. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()
        with safe_open(path, framework="numpy") as tensors:
            return tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118 (not a dict)
    except (OSError, ValueError, TypeError, SafetensorError) as cause:
        raise WeightsError(f"{path} cannot be read as safetensors ({reason(cause)}); {remedy}.") from cause
