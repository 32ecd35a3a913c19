"""One owner of a folder at a time: who works in it stands in `owner.json`, and is succeeded only when provably gone.

The file says host, process, when that process started, and a random token; its time is renewed while the owner works.
An owner on this machine is gone when no process of that number and start is there; one on another machine (or in another
container) when it has not renewed the file for EXPIRES_SECONDS, by the clock of the file system that holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from msd.errors import RunError
from msd.files import write_error
from msd.reading import Kind, read_model

OWNER = "owner.json"
RENEW_SECONDS = 15.0
EXPIRES_SECONDS = 150.0
OWNER_BYTES = 10_000
_KIND = Kind("a folder's owner", "move it away")
WRITING_SECONDS = 5.0
"""A file that says nothing whole is one being written, unless it is older than this."""


@dataclass(frozen=True)
class Owner:
    """A process that works in a folder, as it describes itself."""

    what: str
    """The command, in words a user knows."""
    host: str
    machine: str
    """What must be equal for process numbers to mean the same: the boot, and the container's process table."""
    pid: int
    started: str
    """When the process started, as the system counts."""
    since: float
    """Unix time at which it took the folder."""
    token: str

    @classmethod
    def here(cls, what: str) -> Owner:
        pid, host = os.getpid(), socket.gethostname()
        return cls(what, host, _machine(), pid, _started(pid), time.time(), secrets.token_hex(8))

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.what} (process {self.pid} on {self.host}, since {since})"

    def is_gone(self, folder: Path) -> bool:
        """Whether it can be proven that it works in `folder` no more."""
        machine = _machine()
        if self.machine == machine:
            return _started(self.pid) != self.started
        if self.host == socket.gethostname() and self.machine.split()[0] != machine.split()[0]:
            return True  # this machine was started anew since
        return _seconds_silent(folder) > EXPIRES_SECONDS


class Held:
    """A folder that this process owns. `check` now and then: a machine that slept for long may have lost it."""

    def __init__(self, folder: Path, owner: Owner):
        self.num_users = 1
        self._folder, self._owner = folder, owner
        self._lost, self._over = False, threading.Event()
        threading.Thread(target=self._renew, name=f"owner of {folder}", daemon=True).start()

    def check(self) -> None:
        """Raises RunError when another has taken the folder over, or removed it: nothing may be written any more."""
        if self._lost:
            raise RunError(
                f"{self._folder} no longer belongs to this command (this machine slept for too long, or {OWNER} was "
                "removed); see with msd status whether another command works there, and run this one again if not."
            )

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            found = _read(self._folder)
            if found is None or found.token != self._owner.token:
                self._lost = True
                return
            with contextlib.suppress(OSError):
                os.utime(self._folder / OWNER)

    def release(self) -> None:
        self._over.set()
        _remove(self._folder, self._owner)


_held: dict[Path, Held] = {}


@contextmanager
def owned(folder: Path, what: str) -> Iterator[Held]:
    """Own `folder`, which is made if need be, while the block runs; within a process such blocks may be nested.

    `what` tells others who it is. An owner that is provably gone is succeeded. Raises RunError naming one that is not, or
    when the folder cannot be written. A folder that is made here and stays empty goes again.
    """
    place = folder.resolve()
    if place in _held:
        _held[place].num_users += 1
        try:
            yield _held[place]
        finally:
            _held[place].num_users -= 1
        return
    made = [parent for parent in (place, *place.parents) if not parent.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        owner = _take(place, Owner.here(what))
    except OSError as error:
        raise write_error(folder / OWNER, error, 500) from error
    held = _held[place] = Held(place, owner)
    try:
        yield held
    finally:
        del _held[place]
        held.release()
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def owner_of(folder: Path) -> Owner | None:
    """Who works in `folder` now; None when nobody does whose end cannot be proven."""
    found = _read(folder)
    return None if found is None or found.is_gone(folder) else found


def remove_gone(folder: Path) -> None:
    """Remove what an owner that is provably gone left behind of itself."""
    found = _read(folder)
    if found is not None and found.is_gone(folder):
        _remove(folder, found)


def refusal(folder: Path, owner: Owner) -> RunError:
    """What to say to a second command."""
    advice = "wait for it to end (see msd status), or choose another --out"
    if owner.machine != _machine():
        advice += f"; should it have died there, the folder is free {EXPIRES_SECONDS:.0f} s after its last sign of life"
    return RunError(f"{folder} is in use by {owner}; {advice}.")


def _take(folder: Path, owner: Owner) -> Owner:
    deadline = time.monotonic() + 2 * WRITING_SECONDS
    while time.monotonic() < deadline:
        try:
            with open(folder / OWNER, "x", encoding="utf-8") as stream:
                json.dump(asdict(owner), stream)
            return owner
        except FileExistsError:
            found = _read(folder)
        if found is None:
            time.sleep(0.05)  # it ended just now, or is writing its name
        elif not found.is_gone(folder):
            raise refusal(folder, found)
        else:
            _remove(folder, found)
    raise RunError(f"{folder / OWNER} is not a file that msd wrote and cannot be removed; move it away.")


def _read(folder: Path) -> Owner | None:
    """What the file says; None when there is none, or it is being written. One that stays broken is removed."""
    path = folder / OWNER
    if not os.path.lexists(path):
        return None
    try:
        return read_model(path, Owner, _KIND, OWNER_BYTES)
    except RunError:
        if _seconds_silent(folder) > WRITING_SECONDS:
            with contextlib.suppress(OSError):
                path.unlink()
        return None


def _remove(folder: Path, owner: Owner) -> None:
    """Remove the file if it is still this owner's: of two that succeed a third, one must not remove the other's."""
    try:
        guard = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(guard, fcntl.LOCK_EX)
        found = _read(folder)
        if found is not None and found.token == owner.token:
            with contextlib.suppress(OSError):
                (folder / OWNER).unlink()
    finally:
        os.close(guard)


def _seconds_silent(folder: Path) -> float:
    """Time since the file was renewed, by the clock of its own file system where that can be asked."""
    probe = folder / f".{OWNER}.{os.getpid()}.tmp"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        now = time.time()
    try:
        return now - (folder / OWNER).stat().st_mtime
    except OSError:
        return 0.0


def _machine() -> str:
    """The boot, and the process table within it, that give process numbers their meaning."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} all"


def _started(pid: int) -> str:
    """When a process of that number started, empty when there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields_after_name = status.rpartition(")")[2].split()
        return "" if fields_after_name[0] in "ZX" else fields_after_name[19]
    except (OSError, IndexError):
        if sys.platform == "linux":
            return ""
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()
