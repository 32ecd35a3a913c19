"""Writing that is never half done: everything goes to a temporary name first and is renamed when complete."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msd.errors import MsdError, RunError
from msd.reading import open_regular, reason

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust put the system's error number into a message."""


def system_error(error: BaseException | None) -> int | None:
    """The system's error number behind an exception, also where a library wrapped it; None where there is none."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        if match := _SYSTEM_ERROR.search(str(error)):
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None


def write_error(path: Path, error: Exception, num_bytes: int = 0) -> RunError:
    """The sentence for a failed writing of `path`, which wanted `num_bytes`. What was there before is still there."""
    code = system_error(error)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return RunError(
            f"the disk is full: {path} needs at least {num_bytes:,} bytes and {_free_bytes(path):,} are free; "
            "free some space, and the same command goes on."
        )
    if code == errno.EFBIG:
        return RunError(
            f"{path} needs at least {num_bytes:,} bytes, more than a file may have here; raise the limit (ulimit -f), "
            "and the same command goes on."
        )
    reason = os.strerror(code) if code else str(error)
    return RunError(f"{path} cannot be written ({reason}); choose another place with --out.")


@contextmanager
def _translating(path: Path, temporary: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turn what the system says against writing `temporary` into a sentence about `path`; other errors pass."""
    try:
        yield
    except MsdError:
        raise
    except Exception as error:
        if system_error(error) is None:
            raise
        raise write_error(path, error, max(num_bytes, _size(temporary))) from error


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())


def _free_bytes(path: Path) -> int:
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def replacing(path: Path, num_bytes: int = 0) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; rename it onto `path` if the block succeeds, remove it if not.

    Raises RunError when it cannot be written, saying how many bytes were wanted: `num_bytes`, or what was written of them.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _translating(path, temporary, num_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


@contextmanager
def replacing_folder(path: Path, ours: Collection[str] = ()) -> Iterator[Path]:
    """Like `replacing`, for a whole folder: at any moment, also when killed, `path` is the old one or the complete new one.

    Of the old one only `ours` goes, files that we once wrote, as paths within it: whatever else the new one lacks is carried
    over, and what is a link to a folder stays one, its target replaced. Where two names cannot be exchanged in one step (not
    Linux, some network file systems) a kill between two renames can leave no `path` at all; the old one then comes back on
    the next call, or by `remove_leftovers`. Raises RunError when the folder cannot be written.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    retired = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file where a folder is to be written; choose another place with --out.")
    try:
        with _translating(path, temporary):
            _restore_orphan(path)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            if not path.exists():
                os.replace(temporary, path)
            else:
                _carry_over(path, temporary, set(ours))
                if not exchange(temporary, path):
                    os.replace(path, retired)
                    os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # what was begun, or, exchanged, the old one
        if retired.exists() and not path.exists():
            os.replace(retired, path)
        shutil.rmtree(retired, ignore_errors=True)


def _carry_over(old: Path, new: Path, ours: set[str], within: str = "") -> None:
    """Give `new` what `old` has and it lacks, but for `ours`. Both names hold a file until the old folder goes.

    Where `old` has a link to a folder that `new` brings, the link stays and its target is replaced: a step of its own, which
    a kill can separate from the others.
    """
    for entry in os.scandir(old):
        name, target = within + entry.name, new / entry.name
        if name in ours or _OURS.fullmatch(entry.name):
            continue
        if entry.is_symlink() and entry.is_dir() and target.is_dir():
            nested = {path.removeprefix(f"{name}/") for path in ours if path.startswith(f"{name}/")}
            with replacing_folder(Path(entry.path), nested) as moved:
                shutil.copytree(target, moved, dirs_exist_ok=True)
            shutil.rmtree(target)
        if entry.is_dir(follow_symlinks=False):
            was_there = target.is_dir()
            target.mkdir(exist_ok=True)
            _carry_over(Path(entry.path), target, ours, f"{name}/")
            if not was_there and any(os.scandir(entry.path)) and not any(os.scandir(target)):
                target.rmdir()  # all that it held was ours
        elif target.is_dir():
            raise RunError(f"{entry.path} is in the way of what is to be written there; move it away.")
        elif entry.is_symlink() and not os.path.lexists(target):
            os.symlink(os.readlink(entry.path), target)
        elif not os.path.lexists(target):
            link_or_copy(Path(entry.path), target)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, so that it need not be read; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""From linux/fcntl.h and linux/fs.h."""


def exchange(first: Path, second: Path) -> bool:
    """Swap what two names stand for, in one step; False, with nothing done, where the system has no such step.

    Raises OSError when it has one and it fails.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # no such function: not Linux, or an old C library
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):  # an old kernel, or a file system without it
        return False
    raise OSError(code, os.strerror(code), str(second))


_OURS = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]{1,9})\.(?P<kind>tmp|old)")


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove, anywhere below `folder`, what `replacing` and `replacing_folder` of killed processes left; returns what went.

    Only our own names (`.NAME.PID.tmp`, `.NAME.PID.old`) of processes that no longer run on this machine are touched. A
    retired folder that nothing has replaced is given its name back instead.
    """
    removed = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _OURS.fullmatch(name)
            if match is None or is_alive(int(match["pid"])):
                continue
            leftover = Path(place, name)
            if match["kind"] == "old":
                _restore_orphan(leftover.with_name(match["name"]))
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
            removed.append(leftover)
        folders[:] = [name for name in folders if not _OURS.fullmatch(name)]
    return removed


def _restore_orphan(path: Path) -> None:
    """If `path` is gone and a killed process had set the old one aside, put that back."""
    if path.exists() or not path.parent.is_dir():
        return
    for candidate in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        match = _OURS.fullmatch(candidate.name)
        if match and match["name"] == path.name and not is_alive(int(match["pid"])):
            os.replace(candidate, path)
            return


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or it ended just now
        return True
    return status.rpartition(")")[2].split()[:1] not in (["Z"], ["X"])


def ensure_writable(folder: Path) -> None:
    """Create `folder` and prove that a file can be written in it, before hours of work depend on it. Raises RunError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    probe(folder)


def probe(folder: Path) -> None:
    """Prove that a file can be written in `folder`, or, while there is none, beside its nearest existing parent.

    Leaves nothing behind. Raises RunError.
    """
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    trace = place / f".probe.{os.getpid()}.tmp"
    try:
        if not place.is_dir():  # a file, or a link to nowhere; else it says so itself
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        trace.write_bytes(b"x")
    except OSError as error:
        raise write_error(folder, error, 1) from error
    finally:
        with contextlib.suppress(OSError):
            trace.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    content = text.encode()
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """As JSON; numbers that are not finite, which JSON has not, become null."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """A JSON value with None for every number that is NaN or infinite."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def remove_own(folder: Path, names: re.Pattern[str], keep: Collection[str] = ()) -> None:
    """Remove the regular files that lie directly in `folder` and whose whole name matches, but those to `keep`.

    Nothing where `folder` is a link: what lies behind it is somebody else's.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for entry in list(os.scandir(folder)):
        if names.fullmatch(entry.name) and entry.name not in keep and entry.is_file(follow_symlinks=False):
            Path(entry).unlink(missing_ok=True)


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON value, independent of key order and white space."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def sha256_file(path: Path, error: type[MsdError] = RunError) -> str:
    """Checksum of a regular file. Raises `error` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except FileNotFoundError as cause:
        raise error(f"{path} does not exist; restore it, or make it again.") from cause
    except (OSError, ValueError) as cause:
        raise error(f"{path} cannot be read ({reason(cause)}); restore it, or make it again.") from cause
    return digest.hexdigest()


def has_sha256(path: Path | None, checksum: str) -> bool:
    """Whether `path` is a regular file that can be read and has this checksum."""
    try:
        return path is not None and sha256_file(path) == checksum
    except MsdError:
        return False
