"""A folder as it was, to be compared with what it became."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks.abuse.case import Fault

HASHED_BYTES = 64 * 2**20
"""Larger files are known by their size."""
_TEMPORARY = re.compile(r"\..*\.(tmp|old)|\.writable.*")
_BOOKS = re.compile(r"(.*/)?(timings\.json|status\.json|log\.txt|[^/]*lock[^/]*)")

Tree = dict[str, str]
"""What lies at each relative path: kind and content in a few characters."""


def snapshot(folder: Path) -> Tree:
    found: Tree = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            found[path.relative_to(folder).as_posix()] = describe(path)
    return found


def describe(path: Path) -> str:
    """A link is its target, a folder its kind, a file its content."""
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    if not path.is_file():
        return "device or pipe"
    if (size := path.stat().st_size) > HASHED_BYTES:
        return f"{size} bytes"
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except PermissionError:
        return f"{size} bytes, closed"


def is_bookkeeping(path: str) -> bool:
    """What any command may write, also one that fails: times, last words, logs and locks."""
    return _BOOKS.fullmatch(path) is not None


def differences(before: Tree, after: Tree, excused: Callable[[str], bool] = lambda path: False) -> list[Fault]:
    """A fault for each path that was removed, changed or added, unless it is bookkeeping or `excused`."""
    faults = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path) or is_bookkeeping(path) or excused(path):
            continue
        if path not in after:
            faults.append(Fault("lost", f"{path} is gone"))
        elif path not in before:
            if after[path] != "folder":
                faults.append(Fault("tree", f"{path} was written by a command that failed"))
        else:
            faults.append(Fault("lost", f"{path} was changed by a command that failed"))
    return faults


def leftovers(folder: Path) -> list[Fault]:
    """Temporary files that nobody will come back for."""
    found = [
        Path(place, name).relative_to(folder)
        for place, folders, files in os.walk(folder)
        for name in [*folders, *files]
        if _TEMPORARY.fullmatch(name)
    ]
    return [Fault("leftover", f"{path} was left over") for path in sorted(found)]
