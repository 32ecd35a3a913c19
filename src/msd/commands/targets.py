"""Where a command writes: `--out` is refused when it holds what msd did not make, and proved writable, before any work."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from msd.errors import RunError
from msd.files import probe
from msd.networks.facts import FACTS
from msd.owner import OWNER
from msd.reading import Kind, read_json
from msd.run import RECIPE, Run

PNG_MARK = ("Software", "msd")
"""Key and value of the text in the pictures that we write, by which they are known again."""
NPZ_ARRAYS = ("images", "labels")
"""The arrays of a file of samples: no more, no less."""
SIZES_KIND = "sizes"
"""What a table that `msd shrink` saved says that it is."""


def check_run(run: Run) -> None:
    """Raises RunError unless its folder is a run's, empty (hidden files aside) or not there yet. Writes nothing."""
    folder = run.folder
    _check_is_folder(folder)
    # A run whose recipe was lost is still one: its jobs are known by their content, so it can be bound anew.
    known = (folder / RECIPE).exists() or (run.plan.exists() and run.jobs.is_dir())
    if not known and folder.is_dir() and (found := _first_entry(folder)):
        raise RunError(f"{folder} is not empty (it holds {found}) and no run's folder; give a new folder's name with --out.")


def check_results(run: Run) -> None:
    """Raises RunError unless all that training and evaluation end in can be written, hours before it is."""
    for folder in (run.folder, run.teacher, run.features, run.jobs, run.cohort, run.rows, run.evaluations, run.report):
        _check_is_folder(folder)
        probe(folder)


def check_report(folder: Path, run: Run) -> None:
    """Raises RunError unless the run's report can be written into `folder`: a report's, empty, or not there yet."""
    _check_is_folder(folder)
    if (
        folder != run.report
        and folder.is_dir()
        and not is_metrics(folder / "metrics.json")
        and (found := _first_entry(folder))
    ):
        raise RunError(
            f"{folder} is not empty (it holds {found}) and no report's folder; give a new folder's name with --out."
        )
    probe(folder)


def check_denoiser(folder: Path) -> None:
    """Raises RunError unless a denoiser can be written into `folder`: one of ours, empty, or not there yet."""
    _check_is_folder(folder)
    if not (folder / FACTS).is_file() and folder.is_dir() and (found := _first_entry(folder)):
        raise RunError(f"{folder} is not empty (it holds {found}) and no denoiser's folder; give a new folder's name.")
    probe(folder)


def check_file(path: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    """Raises RunError unless `path` is free or one of our own (`what` says of which kind), and writable."""
    if path.is_dir():
        raise RunError(f"{path} is a folder, and {what} go into a file; give its name with --out.")
    if os.path.lexists(path) and not (path.is_file() and is_ours(path)):  # a pipe or a device is never ours
        raise RunError(f"{path} exists and does not hold {what} that msd wrote; choose another name with --out, or move it.")
    probe(path.parent)


def beside(folder: Path, ending: str) -> Path:
    """The file that is named after `folder` and lies next to it, so not in it: for runs/demo/cohort, runs/demo/cohort-..."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(named.name + ending)


def is_metrics(path: Path) -> bool:
    """Whether `path` holds the results of an evaluation."""
    try:
        value = read_json(path, Kind("an evaluation's results", "measure them again"))
    except RunError:
        return False
    return isinstance(value, dict) and {"schema", "rows", "main"} <= value.keys()


def is_sizes(path: Path) -> bool:
    """Whether `path` holds a table that `msd shrink` wrote."""
    try:
        value = read_json(path, Kind("a table of sizes", "make it again with `msd shrink`"))
    except RunError:
        return False
    return isinstance(value, dict) and value.get("kind") == SIZES_KIND and "rows" in value


def is_samples(path: Path) -> bool:
    """Whether `path` is a picture or a file of arrays that `msd sample` wrote."""
    return _is_picture(path) if path.suffix == ".png" else _is_arrays(path)


def _is_picture(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.info.get(PNG_MARK[0]) == PNG_MARK[1]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # SyntaxError: Pillow's word for a broken PNG
        return False


def _is_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(archive.namelist()) == [f"{name}.npy" for name in NPZ_ARRAYS]
    except (OSError, zipfile.BadZipFile):
        return False


def _check_is_folder(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir() and not folder.is_symlink():
        raise RunError(f"{folder} is a file where a folder is to be written; choose another place with --out.")


def _first_entry(folder: Path) -> str | None:
    """A file or folder in it; hidden ones, which nothing of ours can meet, and an owner's mark don't count.

    Raises RunError.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name != OWNER)
    except OSError as error:
        raise RunError(f"{folder} cannot be read ({error.strerror or error}); choose another place with --out.") from error
    return names[0] if names else None
