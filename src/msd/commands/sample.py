"""`msd sample`: images of a cohort, as a grid to look at or as arrays to work with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msd.cohort.generate import Cohort
from msd.errors import RunError
from msd.files import replacing
from msd.training.engine import Engine


def sample(folder: Path, labels: Sequence[int] | None, num: int, seed: int, out: Path, device: str) -> dict[str, Any]:
    """`num` images of each label, in one file: .png (a row a label) or .npz (`images` [N, C, H, W] in [-1, 1], `labels`)."""
    if out.suffix not in (".png", ".npz"):
        raise RunError(f"{out} ends in neither .png nor .npz; choose one with --out.")
    cohort = Cohort.load(folder, Engine.on(device).device)
    chosen = list(labels) if labels else list(range(cohort.partition.num_conditions))
    wanted = torch.tensor(chosen).repeat_interleave(num)
    images = cohort.generate(wanted, seed=seed)
    with replacing(out) as temporary, temporary.open("wb") as stream:
        if out.suffix == ".npz":
            np.savez_compressed(stream, images=images.numpy(), labels=wanted.numpy())
        else:
            grid_image(images, num_columns=num).save(stream, "PNG")
    parts = cohort.route(torch.tensor(chosen)).tolist()
    return {
        "out": str(out),
        "num_images": len(images),
        "seed": seed,
        "students": {str(label): part for label, part in zip(chosen, parts, strict=True)},
    }


def grid_image(pixels: Tensor, num_columns: int, zoom: int | None = None):
    """Images `[N, C, H, W]` in [-1, 1] as one Pillow picture, row by row, enlarged to at least 32 pixels each."""
    from PIL import Image

    num, channels, height, width = pixels.shape
    num_rows = -(-num // num_columns)
    zoom = zoom or max(1, -(-40 // height))
    gap = 2
    cells = (num_rows * (height * zoom + gap) + gap, num_columns * (width * zoom + gap) + gap)
    canvas = np.full((*cells, channels), 255, dtype=np.uint8)
    grey = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for index, picture in enumerate(grey):
        top = gap + (index // num_columns) * (height * zoom + gap)
        left = gap + (index % num_columns) * (width * zoom + gap)
        canvas[top : top + height * zoom, left : left + width * zoom] = picture.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
