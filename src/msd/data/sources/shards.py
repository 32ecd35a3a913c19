"""WebDataset: tar shards read once, from front to back, and never extracted. An image's files follow each other by key."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from msd.data.decode import MAX_FILE_BYTES, Damaged
from msd.data.sources.folders import IMAGES, UNSUPPORTED, unsupported
from msd.data.sources.source import Entry, Key, Label, Source, file_key, label_of, shards_in, shown, split_of
from msd.errors import DataError
from msd.reading import Broken, fitted, open_regular, parse_json, reason

TARS = (".tar", ".tar.gz", ".tgz")
LABELS = ("cls", "json", "txt")
"""Files that may say an image's label, the first that is there counting: a number or a name, {"label": ...}, a name."""
MAX_LABEL_BYTES = 2**16


class Shards(Source):
    """Shards in the order of their names. How many images they hold shows only when they have been read."""

    layout = "WebDataset shards"
    is_listed = False

    def __init__(self, path: Path, shards: list[Path]):
        super().__init__(path)
        self._shards = shards
        self._root = path if path.is_dir() else path.parent

    @classmethod
    def found(cls, path: Path) -> Shards | None:
        if not path.is_dir():
            return cls(path, [path]) if path.name.lower().endswith(TARS) else None
        shards = shards_in(path, TARS)
        return cls(path, shards) if shards else None

    def key(self) -> Key:
        return file_key(*self._shards)

    def splits(self) -> tuple[str, ...]:
        return tuple(sorted({split for shard in self._shards if (split := split_of(shard, self._root))}))

    def entries(self, split: str | None) -> Iterator[Entry]:
        for shard in self._shards:
            part = split_of(shard, self._root)
            if split is not None and part != split:
                continue
            try:
                for key, files in self._samples(shard):
                    if (entry := _entry(shard, key, files, part)) is not None:
                        yield entry
            except (OSError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
                raise DataError(f"{shard} is damaged ({reason(error)}); restore it, or leave it out.") from error

    def _samples(self, shard: Path) -> Iterator[tuple[str, dict[str, bytes | Damaged]]]:
        """Consecutive files of one key, by what stands after the key's dot."""
        current, files = "", {}
        with open_regular(shard) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] (it would keep one for each file)
                folder, slash, base = member.name.rpartition("/")
                stem, dot, kind = base.partition(".")
                if not member.isreg() or not dot or not stem:
                    continue
                key = f"{folder}{slash}{stem}"
                if key != current:
                    if files:
                        yield current, files
                    current, files = key, {}
                files[kind.lower()] = self._read(archive, member)
        if files:
            yield current, files

    def _read(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Damaged:
        if member.size > MAX_FILE_BYTES:
            return Damaged(f"it is larger than {MAX_FILE_BYTES:,} bytes")
        stream = archive.extractfile(member)
        return stream.read() if stream else b""


def _entry(shard: Path, key: str, files: dict[str, bytes | Damaged], part: str) -> Entry | None:
    """The image among a key's files; None where there is none."""
    kind = next((kind for kind in files if f".{kind}".endswith((*IMAGES, *UNSUPPORTED))), None)
    if kind is None:
        return None
    name = f"{shard.name}, {shown(key)}.{kind}"
    for what in LABELS:
        content = files.get(what)
        if isinstance(content, bytes):
            return Entry(name, _label(shard, f"{key}.{what}", content), unsupported(f".{kind}") or files[kind], part)
    raise DataError(f"{name} has no label; add {shown(key)}.cls, .json or .txt beside it.")


def _label(shard: Path, name: str, content: bytes) -> Label:
    try:
        if len(content) > MAX_LABEL_BYTES:
            raise Broken(f"it is larger than {MAX_LABEL_BYTES:,} bytes")
        text = content.decode("utf-8-sig").strip()
        if name.endswith(".json"):
            value = parse_json(text)
            found = value.get("label", value.get("cls")) if isinstance(value, dict) else value
            if isinstance(found, bool) or not isinstance(found, int | str):
                raise Broken("it says no label")
            text = str(found)
        if not text:
            raise Broken("it is empty")
    except ValueError as error:
        raise DataError(
            f"{shard.name}, {shown(name)} is no label ({fitted(reason(error), 80)}); write a number or a name."
        ) from error
    return label_of(text)
