"""What can be wrong with a file: what lies there instead, which bytes differ, what a key says."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]

LARGE_BYTES = 128 * 2**20


def _replace(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


def _large(path: Path) -> None:
    """Sparse: it costs nothing until somebody reads it."""
    with path.open("r+b" if path.exists() else "wb") as stream:
        stream.truncate(LARGE_BYTES)


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


TYPES: dict[str, Damage] = {
    "missing": _replace(lambda path: None),
    "folder": _replace(lambda path: path.mkdir()),
    "pipe": _replace(lambda path: os.mkfifo(path)),
    "link-to-itself": _replace(_link_to_itself),
    "link-to-zeros": _replace(lambda path: path.symlink_to("/dev/zero")),
    "link-to-nothing": _replace(lambda path: path.symlink_to("nothing-here")),
    "empty": lambda path: path.write_bytes(b""),
    "not-utf8": lambda path: path.write_bytes(b"\xff\xfe\x80 not text \xc3\x28" * 40),
    "too-large": _large,
    "unreadable": lambda path: path.chmod(0),
}
BROKEN_CONTENT = ("missing", "empty", "not-utf8")
"""Regular files with nothing of use in them: whoever makes the file can make it again."""


def truncated(share: float) -> Damage:
    """Only the first part is left; never all of it."""

    def damage(path: Path) -> None:
        size = path.stat().st_size
        os.truncate(path, min(int(size * share), max(size - 1, 0)))

    return damage


def flipped(place: float) -> Damage:
    """One bit is another."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            position = min(int(place * len(content)), len(content) - 1)
            content[position] ^= 1 << (position % 8)
            path.write_bytes(bytes(content))

    return damage


def appended(content: bytes) -> Damage:
    def damage(path: Path) -> None:
        with path.open("ab") as stream:
            stream.write(content)

    return damage


def byte_damages(source: random.Random, truncations: int, flips: int) -> dict[str, Damage]:
    """At random places, the same for the same source."""
    found: dict[str, Damage] = {}
    for index in range(truncations):
        found[f"truncated-{index}"] = truncated(source.random())
    for index in range(flips):
        found[f"flipped-{index}"] = flipped(source.random())
    return found


Path_ = tuple[str | int, ...]


def key_paths(value: Any, prefix: Path_ = (), depth: int = 5) -> Iterator[Path_]:
    """Where every key of nested JSON stands; of a list, its first entry's."""
    if depth == 0:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*prefix, key)
            yield from key_paths(inner, (*prefix, key), depth - 1)
    elif isinstance(value, list) and value:
        yield (*prefix, 0)
        yield from key_paths(value[0], (*prefix, 0), depth - 1)


def get(value: Any, path: Path_) -> Any:
    for step in path:
        value = value[step]
    return value


def _parent(value: Any, path: Path_) -> Any:
    return get(value, path[:-1])


def _set(replacement: Any) -> Callable[[Any, Path_], None]:
    def change(value: Any, path: Path_) -> None:
        _parent(value, path)[path[-1]] = replacement

    return change


def _other_type(value: Any, path: Path_) -> None:
    old = get(value, path)
    other: Any = {"a": [1]} if isinstance(old, str | int | float | bool | type(None)) else "word"
    _set(other)(value, path)


def _drop(value: Any, path: Path_) -> None:
    del _parent(value, path)[path[-1]]


def _negative(value: Any, path: Path_) -> None:
    old = get(value, path)
    _set(-abs(old) - 1 if isinstance(old, int | float) and not isinstance(old, bool) else -1)(value, path)


DEEP = json.loads("[" * 400 + "]" * 400)

CHANGES: dict[str, Callable[[Any, Path_], None]] = {
    "dropped": _drop,
    "other-type": _other_type,
    "null": _set(None),
    "nan": _set(float("nan")),
    "infinite": _set(float("inf")),
    "huge": _set(10**30),
    "negative": _negative,
    "true": _set(True),
    "text": _set("[bold]\u202e\x1b[31m\n" + "x" * 50),
    "nested": _set(DEEP),
    "list": _set([]),
}


def changed(path_: Path_, change: str) -> Damage:
    """One key of a JSON file, or of its first line where it holds a value a line."""

    def damage(path: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        value = json.loads(lines[0])
        CHANGES[change](value, path_)
        path.write_text("\n".join([json.dumps(value), *lines[1:]]) + "\n")

    return damage


def renamed(path_: Path_, name: str) -> Damage:
    """A key itself is another: some of ours name files."""

    def damage(path: Path) -> None:
        value = json.loads(path.read_text())
        parent = _parent(value, path_)
        parent[name] = parent.pop(path_[-1])
        path.write_text(json.dumps(value))

    return damage


def rewritten(change: Callable[[Any], Any]) -> Damage:
    """The whole value of a JSON file is another; a string is written as it is."""

    def damage(path: Path) -> None:
        value = change(json.loads(path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text()))
        path.write_text(value if isinstance(value, str) else json.dumps(value))

    return damage


def _twice(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        return "{}{}"
    key = json.dumps(next(iter(value)))
    return json.dumps(value)[:-1] + f", {key}: 0}}"


WHOLE: dict[str, Callable[[Any], Any]] = {
    "as-list": lambda value: [value],
    "as-null": lambda value: None,
    "as-number": lambda value: 3,
    "as-text": lambda value: json.dumps("words"),
    "duplicate-key": _twice,
    "unknown-key": lambda value: value | {"surprise": 1} if isinstance(value, dict) else [1],
    "older-schema": lambda value: value | {"schema": 1} if isinstance(value, dict) else [1],
    "newer-schema": lambda value: value | {"schema": 99} if isinstance(value, dict) else [1],
    "text-schema": lambda value: value | {"schema": "2"} if isinstance(value, dict) else [1],
    "nested-deep": lambda value: "[" * 100_000 + "]" * 100_000,
    "two-values": lambda value: json.dumps(value) + json.dumps(value),
}
BREAKING = (
    "as-list",
    "as-null",
    "as-number",
    "as-text",
    "nested-deep",
    "two-values",
    "older-schema",
    "newer-schema",
    "text-schema",
)
"""Nobody could take such a file for what it should be."""
ESCAPES = ("../../victim.txt", "{place}/victim.txt", "/etc/hostname", "..", "", ".", "a\x00b", "jobs/../../victim.txt")
