"""The few Linux calls that the standard library does not offer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER, PR_CAPBSET_DROP = 36, 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
SYS_CAPGET_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def adopt_orphans() -> None:
    """From now on every descendant whose parent dies becomes a child of this process, so none escapes the count."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def obey_permissions() -> bool:
    """Make root obey file modes as users must, programs it starts included; False where that cannot be done."""
    if os.geteuid() != 0:
        return True
    library = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    numbers = SYS_CAPGET_CAPSET.get(os.uname().machine)
    if numbers is None:
        return False
    header = ctypes.create_string_buffer(struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    if library.syscall(numbers[0], header, data) != 0:
        return False
    dropped = 1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH
    effective, permitted, inheritable, *upper = struct.unpack("6I", data.raw)
    data = ctypes.create_string_buffer(
        struct.pack("6I", effective & ~dropped, permitted & ~dropped, inheritable & ~dropped, *upper), 24
    )
    return library.syscall(numbers[1], header, data) == 0


def mount_tmpfs(folder: Path, num_bytes: int) -> bool:
    """A file system of its own of so many bytes; False where that is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={num_bytes}".encode()
    return ctypes.CDLL(None).mount(b"abuse", os.fsencode(folder), b"tmpfs", 0, options) == 0


def unmount(folder: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(folder), 2)  # lazily: a killed worker may still be there


def parents() -> dict[int, int]:
    """Every living process and its parent; zombies are not living."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = int(parent)
    return found


def descendants(process: int) -> list[int]:
    """All living processes below `process`, children first."""
    known = parents()
    found, level = [], [process]
    while level:
        level = [child for child, parent in known.items() if parent in level]
        found += level
    return found


def kill_descendants(process: int) -> None:
    """SIGKILL to all processes below, again while one is left: one may be starting another just now."""
    deadline = time.monotonic() + 5
    while (numbers := descendants(process)) and time.monotonic() < deadline:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        reap()
        time.sleep(0.01)
    reap()


def reap() -> None:
    """Take leave of adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
