"""What can become of a file, and what a reader may make of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msd.errors import MsdError
from msd.reading import JSON_BYTES, Broken

Damage = Callable[[Path], object]
Read = Callable[[Path], object]


def be_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's whole path is limited to about a hundred bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


DAMAGES: dict[str, Damage] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a socket": be_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "not UTF-8": lambda path: path.write_bytes(b'{"schema": 2, "name": "\xff\xfe"}\n'),
    "cut short": lambda path: path.write_text('{"schema": 2, "name\n'),
    "two values": lambda path: path.write_text('{"schema": 2} {"schema": 2}\n'),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a repeated key": lambda path: path.write_text('{"schema": 2, "schema": 2}\n'),
    "not a number": lambda path: path.write_text('{"schema": 2, "weight": -.inf, "other": NaN}\n'),
    "half a character": lambda path: path.write_text('{"schema": 2, "name": "\\ud800"}\n'),
    "nested without end": lambda path: path.write_text('{"schema": 2, "name": ' + "[" * 50_000 + "\n"),
    "a number of 5000 digits": lambda path: path.write_text('{"schema": 2, "name": ' + "9" * 5_000 + "}\n"),
    "an unknown field": lambda path: path.write_text('{"schema": 2, "wings": {"left": 1}}\n'),
    "a byte too large": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), JSON_BYTES + 1),
}


def complaint(read: Callable[[Any], object], value: Any) -> MsdError | Broken | None:
    """What reading raises of the kinds that it may."""
    try:
        read(value)
    except (MsdError, Broken) as error:
        return error
    return None


def check_sentence(text: str, path: Path) -> None:
    assert "\n" not in text
    assert path.name in text
    assert text.endswith(".") or "(known: " in text
    assert "; " in text or "(known: " in text
    assert "weights_only" not in text
    assert len(text) < 700
