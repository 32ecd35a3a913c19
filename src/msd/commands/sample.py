"""`msd sample`: images of a cohort, as a grid to look at or as arrays to work with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from msd.cohort.generate import Cohort
from msd.commands.targets import NPZ_ARRAYS, PNG_MARK, check_file, is_samples
from msd.errors import RunError
from msd.evaluation.lettering import with_row_names
from msd.evaluation.pictures import grid_image
from msd.files import replacing
from msd.training.engine import Engine


def write_grid(out: Path, images: Tensor, rows: Sequence[int], classes: Sequence[str] | None) -> None:
    """A PNG of images `[N, C, H, W]` in [-1, 1], as many in a row for each class number of `rows`; named if `classes` are
    given. It is marked as ours. Raises RunError where it cannot be written."""
    mark = PngInfo()
    mark.add_text(*PNG_MARK)
    grid = grid_image(images, num_columns=len(images) // len(rows))
    if classes is not None:
        grid = with_row_names(grid, [classes[row] for row in rows], list(map(str, rows)))
    with replacing(out) as temporary, temporary.open("wb") as stream:
        grid.save(stream, "PNG", pnginfo=mark)


def sample(
    folder: Path,
    labels: Sequence[int | str] | None,
    num: int,
    seed: int,
    out: Path,
    device: str,
    *,
    names: bool = True,
) -> dict[str, Any]:
    """`num` images of each label (a class's name or number), in one file: .png, a row a label with its name on the left if
    `names`, or .npz (`images` [N, C, H, W] in [-1, 1], `labels`, the classes' numbers).

    Raises ConditionError for an unknown name, PartitionError for a number that is no class.
    """
    if out.suffix not in (".png", ".npz"):
        raise RunError(f"{out} ends in neither .png nor .npz; choose one with --out.")
    check_file(out, is_samples, "samples")
    cohort = Cohort.load(folder, Engine.on(device).device)
    # Refuses a class that there is not, before its number is multiplied.
    chosen = cohort.keys(labels).tolist() if labels is not None else list(range(cohort.partition.num_conditions))
    cohort.check_memory(len(chosen) * num)
    wanted = torch.tensor(chosen).repeat_interleave(num)
    images = cohort.generate(wanted, seed=seed)
    if out.suffix == ".npz":
        with replacing(out) as temporary, temporary.open("wb") as stream:
            arrays = dict(zip(NPZ_ARRAYS, (images.numpy(), wanted.numpy()), strict=True))
            np.savez_compressed(stream, **arrays)
    else:
        write_grid(out, images, chosen, cohort.classes if names else None)
    parts = cohort.route(torch.tensor(chosen)).tolist()
    return {
        "out": str(out),
        "num_images": len(images),
        "seed": seed,
        "students": {cohort.classes[label]: part for label, part in zip(chosen, parts, strict=True)},
    }
