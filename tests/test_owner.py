"""Who owns a folder: one at a time, told by name; one that is provably gone is succeeded, one that may live is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from msd.errors import RunError
from msd.owner import EXPIRES_SECONDS, OWNER, Owner, owned, owner_of, remove_gone

HOLD = """
import sys, time
from pathlib import Path
from msd.owner import owned
with owned(Path(sys.argv[1]), "msd distill"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def leave(folder: Path, **changes) -> Owner:
    """The file of an owner that differs from this process."""
    owner = replace(Owner.here("msd distill"), token="another", **changes)
    (folder / OWNER).write_text(json.dumps(asdict(owner)))
    return owner


def test_a_second_one_is_told_who_works_there_since_when(other: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"in use by msd distill \(process {other.pid} on .*, since 20\d\d-.*wait for it"):
        owned(tmp_path, "msd distill").__enter__()
    assert owner_of(tmp_path).pid == other.pid


def test_one_that_was_killed_is_succeeded_at_once(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert owner_of(tmp_path) is None
    with owned(tmp_path, "msd distill"):
        assert owner_of(tmp_path).pid == os.getpid()
    assert not (tmp_path / OWNER).exists()


def test_a_stopped_process_still_owns(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.send_signal(signal.SIGSTOP)
    os.utime(tmp_path / OWNER, (0, 0))
    with pytest.raises(RunError, match="in use by"):
        owned(tmp_path, "msd distill").__enter__()


def test_a_recycled_process_number_blocks_nobody(tmp_path: Path) -> None:
    leave(tmp_path, started="1")  # this very process's number, started at another time
    with owned(tmp_path, "msd pretrain"):
        pass


def test_what_ran_before_the_machine_was_started_anew_is_gone(tmp_path: Path) -> None:
    leave(tmp_path, machine="another-boot pid:[4026531836]")
    assert owner_of(tmp_path) is None


def test_one_on_another_host_is_gone_only_after_a_long_silence(tmp_path: Path) -> None:
    leave(tmp_path, host=f"not-{socket.gethostname()}", machine="another-boot pid:[1]")
    with pytest.raises(RunError, match=f"is free {EXPIRES_SECONDS:.0f} s after its last sign of life"):
        owned(tmp_path, "msd distill").__enter__()
    silent = time.time() - EXPIRES_SECONDS - 60
    os.utime(tmp_path / OWNER, (silent, silent))
    remove_gone(tmp_path)
    assert not (tmp_path / OWNER).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"pid": "x"}', b'"x"'])
def test_a_broken_file_is_taken_for_one_being_written_and_then_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / OWNER).write_bytes(content)
    os.utime(tmp_path / OWNER, (0, 0))
    with owned(tmp_path, "msd distill"):
        assert owner_of(tmp_path) is not None


def test_within_a_process_blocks_nest(tmp_path: Path) -> None:
    with owned(tmp_path, "msd demo") as outer:
        with owned(tmp_path, "msd distill") as inner:
            assert inner is outer
        assert owner_of(tmp_path).what == "msd demo"
    assert owner_of(tmp_path) is None


def test_a_folder_made_for_it_goes_again_if_nothing_was_put_there(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b", "msd distill"):
        assert (tmp_path / "a" / "b" / OWNER).exists()
    assert not list(tmp_path.iterdir())
    with owned(tmp_path / "a" / "b", "msd distill"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert (tmp_path / "a" / "b" / "kept").exists()


def test_one_that_lost_its_folder_stops_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msd.owner.RENEW_SECONDS", 0.01)
    with owned(tmp_path, "msd distill") as held:
        held.check()
        theirs = leave(tmp_path)
        time.sleep(0.2)
        with pytest.raises(RunError, match="no longer belongs to this command"):
            held.check()
    assert json.loads((tmp_path / OWNER).read_text())["token"] == theirs.token


def test_of_many_that_want_it_at_once_exactly_one_gets_it(tmp_path: Path) -> None:
    """Also when all of them see the same dead owner."""
    leave(tmp_path, started="1")
    start = tmp_path / "start"
    script = f"import time, pathlib\nwhile not pathlib.Path({str(start)!r}).exists(): time.sleep(0.001)\n{HOLD}"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    time.sleep(1.5)
    start.touch()
    deadline = time.monotonic() + 30
    while sum(process.poll() is not None for process in processes) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [process for process in processes if process.poll() is None]
    assert len(alive) == 1
    assert owner_of(tmp_path).pid == alive[0].pid
    alive[0].kill()
    for process in processes:
        _, errors = process.communicate()
        assert process is alive[0] or b"is in use by" in errors
