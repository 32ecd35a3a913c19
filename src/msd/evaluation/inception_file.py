"""Inception's weights from a file that the user gives: a state dict, every name and shape of it checked, and no code run."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msd import checks
from msd.errors import WeightsError
from msd.evaluation.inception import ConvNorm, Inception
from msd.reading import Broken, fitted, not_itself, open_regular, reason
from msd.recipe import INCEPTION_PREFIX

MAX_BYTES = 2**30
"""Ten times the published file."""
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
REMEDY = f"give pytorch-fid's {PUBLISHED}, or torch-fidelity's file of the same weights"
COUNTER = "num_batches_tracked"
"""Beside each norm in some files, and of no use."""


def load_inception(path: Path) -> tuple[Inception, str]:
    """The network with the weights in the file at `path`, frozen and made for speed, and the file's SHA-256.

    Nothing in the file is run. Raises WeightsError for what is no such file, or of another network.
    """
    content = _content(path)
    tensors = _state(content, path)
    with torch.device("meta"):
        network = Inception()
    wanted = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    _check(tensors, wanted, path)
    network.load_state_dict({name: tensors[name].float().contiguous() for name in wanted}, strict=False, assign=True)
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, ConvNorm):
            module.fuse()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.requires_grad_(False), hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Broken(f"it is larger than {MAX_BYTES:,} bytes")
        if not content:
            raise Broken("it is empty")
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} (the weights that evaluation.features={INCEPTION_PREFIX}FILE names) does not exist; {REMEDY}."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as Inception's weights ({reason(error)}); {REMEDY}.") from error
    if what := not_itself(content):
        raise WeightsError(f"{path} is {what}.")
    return content


def _state(content: bytes, path: Path) -> Mapping[str, Tensor]:
    """Tensors by name, in a file of `torch.save`, old or new."""
    if _is_script(content):
        raise WeightsError(
            f"{path} is a TorchScript archive, a program with its weights (as NVIDIA's inception-2015-12-05.pt is), and no "
            f"program is run; {REMEDY}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch and pickle raise whatever they like
        raise WeightsError(f"{path} cannot be read as Inception's weights ({_why(error, content)}); {REMEDY}.") from error
    is_state = isinstance(found, Mapping) and all(isinstance(one, str) for one in found)
    if not is_state or not all(isinstance(one, Tensor) for one in found.values()):
        raise WeightsError(f"{path} holds no state dict (names and their tensors); {REMEDY}.")
    return {name: value for name, value in found.items() if not name.endswith(COUNTER)}


def _is_script(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return False


def _why(error: Exception, content: bytes) -> str:
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    if asked:
        return f"it asks for {fitted(asked[1], 80)}, which is no tensor, and nothing of it was run"
    if not isinstance(error, pickle.UnpicklingError):
        return reason(error)
    is_pickle = content.startswith(b"\x80")  # as EDM's copy of the network
    return "it is a pickle of objects, of which nothing was run" if is_pickle else "it is no file of tensors"


def _check(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Raises WeightsError naming the first tensor that is missing, one too many, of another shape, or no finite numbers."""
    for name in wanted:
        if name not in tensors:
            raise WeightsError(f"{path} lacks {name}, which FID's Inception-v3 has; {REMEDY}.")
    for name in tensors:
        if name not in wanted:
            raise WeightsError(f"{path} has {fitted(name, 80)}, which FID's Inception-v3 has not; {REMEDY}.")
    for name, value in wanted.items():
        given = tensors[name]
        if given.shape != value.shape or not given.is_floating_point() or given.layout != torch.strided:
            kind = f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
            raise WeightsError(f"{path}: {name} is {kind}, not float {tuple(value.shape)}; {REMEDY}.")
        if checks.num_not_finite(given):
            raise WeightsError(f"{path}: {name} holds numbers that are not finite; restore the file from where it came.")
