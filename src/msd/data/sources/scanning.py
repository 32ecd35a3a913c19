"""Which layout a path holds: the table of layouts, asked in turn."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from msd import checks
from msd.data.sources.folders import ClassFolders, is_image
from msd.data.sources.idx import Idx
from msd.data.sources.listed import Listed
from msd.data.sources.npz import Npz
from msd.data.sources.shards import Shards
from msd.data.sources.source import Source, shown
from msd.data.sources.tables import Tables
from msd.data.sources.tree import Folder, Tree, Zip
from msd.errors import DataError
from msd.reading import reason

TREES: tuple[Callable[[Tree], Source | None], ...] = (Listed.found, Idx.found)
"""Layouts of a folder or a zip that a file in it gives away."""
FILES: tuple[Callable[[Path], Source | None], ...] = (Npz.found, Tables.found, Shards.found)
"""Layouts of a file, or of a folder of such files."""
LAYOUTS = (*FILES, *TREES, ClassFolders.found)
"""All layouts. Class folders come last, as any folder of folders could be some."""
_ADVICE = (
    "give a folder or zip of class folders, images with dataset.json or labels.csv, a .npz, or a folder of IDX, Parquet or "
    ".tar files (docs/own-images.md)"
)


def scan(source: str | Path) -> Source:
    """The images at a path, nothing of them read yet. Raises DataError where there are none in a layout that is known."""
    path = checks.path(source, "data.source", error=DataError).expanduser()
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise DataError(f"{shown(str(path))} is neither a folder nor a file; {_ADVICE}.")
        found = _found(path, is_folder=stat.S_ISDIR(mode))
    except FileNotFoundError as error:
        raise DataError(f"{shown(str(path))} does not exist; {_ADVICE}.") from error
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read ({reason(error)}); make it readable.") from error
    if found is None:
        raise DataError(f"{shown(str(path))} holds no images in a layout that is known; {_ADVICE}.")
    return found


def _found(path: Path, *, is_folder: bool) -> Source | None:
    for layout in FILES:
        if (source := layout(path)) is not None:
            return source
    if not is_folder and path.suffix.lower() != ".zip":
        return None
    tree = Folder(path) if is_folder else Zip(path)
    for layout in TREES:
        if (source := layout(tree)) is not None:
            return source
    tops = tree.tops()
    if (source := ClassFolders.found(tree)) is not None:
        return source
    if any(map(is_image, tops)):
        raise DataError(
            f"{shown(str(path))} holds images and says nothing of their classes; put each class in a folder of its own, or "
            "add a labels.csv with the header file,label."
        )
    if not tops:
        raise DataError(f"{shown(str(path))} is empty; {_ADVICE}.")
    return None
