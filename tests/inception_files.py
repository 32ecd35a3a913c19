"""Inception's weights in the published layout, with random numbers: names and shapes are written out here, layer by layer,
and not taken from what reads such a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

STEM = (
    "Conv2d_1a_3x3 3 32 3 3|Conv2d_2a_3x3 32 32 3 3|Conv2d_2b_3x3 32 64 3 3|Conv2d_3b_1x1 64 80 1 1|Conv2d_4a_3x3 80 192 3 3"
)
A = (
    "branch1x1 {0} 64 1 1|branch5x5_1 {0} 48 1 1|branch5x5_2 48 64 5 5|branch3x3dbl_1 {0} 64 1 1|branch3x3dbl_2 64 96 3 3|"
    "branch3x3dbl_3 96 96 3 3|branch_pool {0} {1} 1 1"
)
B = "branch3x3 288 384 3 3|branch3x3dbl_1 288 64 1 1|branch3x3dbl_2 64 96 3 3|branch3x3dbl_3 96 96 3 3"
C = (
    "branch1x1 768 192 1 1|branch7x7_1 768 {0} 1 1|branch7x7_2 {0} {0} 1 7|branch7x7_3 {0} 192 7 1|"
    "branch7x7dbl_1 768 {0} 1 1|branch7x7dbl_2 {0} {0} 7 1|branch7x7dbl_3 {0} {0} 1 7|"
    "branch7x7dbl_4 {0} {0} 7 1|branch7x7dbl_5 {0} 192 1 7|"
    "branch_pool 768 192 1 1"
)
D = (
    "branch3x3_1 768 192 1 1|branch3x3_2 192 320 3 3|branch7x7x3_1 768 192 1 1|branch7x7x3_2 192 192 1 7|"
    "branch7x7x3_3 192 192 7 1|branch7x7x3_4 192 192 3 3"
)
E = (
    "branch1x1 {0} 320 1 1|branch3x3_1 {0} 384 1 1|branch3x3_2a 384 384 1 3|branch3x3_2b 384 384 3 1|"
    "branch3x3dbl_1 {0} 448 1 1|branch3x3dbl_2 448 384 3 3|"
    "branch3x3dbl_3a 384 384 1 3|branch3x3dbl_3b 384 384 3 1|branch_pool {0} 192 1 1"
)
BLOCKS = {
    "Mixed_5b": A.format(192, 32),
    "Mixed_5c": A.format(256, 64),
    "Mixed_5d": A.format(288, 64),
    "Mixed_6a": B,
    "Mixed_6b": C.format(128),
    "Mixed_6c": C.format(160),
    "Mixed_6d": C.format(160),
    "Mixed_6e": C.format(192),
    "Mixed_7a": D,
    "Mixed_7b": E.format(1280),
    "Mixed_7c": E.format(2048),
}


def layers() -> dict[str, tuple[int, int, int, int]]:
    """Weight shape `(out, in, height, width)` of every convolution by its name."""
    lines = STEM.split("|") + [f"{block}.{line}" for block, text in BLOCKS.items() for line in text.split("|")]
    found = {}
    for line in lines:
        name, before, after, height, width = line.split()
        found[name] = (int(after), int(before), int(height), int(width))
    return found


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """A state dict whose activations keep about their size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    state = {}
    for name, shape in layers().items():
        bound = (6 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state[f"{name}.conv.weight"] = uniform(-bound, bound, *shape)
        for kind, low, high in (
            ("weight", 0.7, 1.3),
            ("bias", -0.2, 0.2),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.7, 1.3),
        ):
            state[f"{name}.bn.{kind}"] = uniform(low, high, shape[0])
        state[f"{name}.bn.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    return state | {"fc.weight": uniform(-0.02, 0.02, 1008, 2048), "fc.bias": torch.zeros(1008)}


def save_inception(path: Path, seed: int = 0) -> Path:
    torch.save(random_state(seed), path)
    return path
