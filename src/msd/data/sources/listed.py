"""A folder or zip of images with a list of labels: `dataset.json` as EDM writes it, or `labels.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import cached_property

from msd.data.decode import Damaged
from msd.data.sources.source import Entry, Key, Label, Source, label_of, normal, shown
from msd.data.sources.tree import Tree
from msd.errors import DataError
from msd.reading import JSON_BYTES, Broken, Kind, Notes, parse_json, reason, validated

DATASET, LABELS = "dataset.json", "labels.csv"
_KIND = Kind("a list of labels", 'write {"labels": [["00000/img0.png", 3], ...]}', DataError)
_HEADER = "begin it with the line file,label"


class _Dataset(Notes):
    labels: list[tuple[str, int]]


class Listed(Source):
    """Images whose labels stand in a list; files that are not in it are ignored."""

    layout = "listed images"

    def __init__(self, tree: Tree, name: str):
        super().__init__(tree.path)
        self._tree, self._name = tree, name

    @classmethod
    def found(cls, tree: Tree) -> Listed | None:
        there = [name for name in (DATASET, LABELS) if tree.has(name)]
        if len(there) == 2:
            raise DataError(f"{tree.path} holds both {DATASET} and {LABELS}; keep the one that is to count.")
        return cls(tree, there[0]) if there else None

    @property
    def _list(self) -> str:
        return f"{self.path / self._name}"

    def key(self) -> Key:
        return self._tree.key()

    @cached_property
    def _rows(self) -> list[tuple[str, Label]]:
        try:
            text = self._tree.read(self._name, JSON_BYTES).decode("utf-8-sig")
            rows = self._of_json(text) if self._name == DATASET else self._of_csv(text)
        except DataError:
            raise
        except (OSError, ValueError, csv.Error) as error:
            raise _KIND.unreadable(self.path / self._name, reason(error)) from error
        if not rows:
            raise DataError(f"{self._list} names no images; add a line for each.")
        seen: set[str] = set()
        for name, _ in rows:
            if any(piece in ("", ".", "..") for piece in name.split("/")) or "\\" in name or "\0" in name:
                raise DataError(f"{self._list} names {shown(name)!r}, which is no path below it; give plain ones with /.")
            if name in seen:
                raise DataError(f"{self._list} names {shown(name)!r} twice; keep one of its lines.")
            seen.add(name)
        return rows

    def _of_json(self, text: str) -> list[tuple[str, Label]]:
        value = parse_json(text)
        if isinstance(value, dict) and value.get("labels", 0) is None:
            raise Broken("its labels are null, and without labels there are no classes")
        return list(validated(value, _Dataset, _KIND, source=self._list).labels)

    def _of_csv(self, text: str) -> list[tuple[str, Label]]:
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = [name.strip().lower() for name in next(lines, [])]
        if "file" not in columns or "label" not in columns:
            raise DataError(f"{self._list} has no header that names file and label; {_HEADER}.")
        file, label = columns.index("file"), columns.index("label")
        rows: list[tuple[str, str]] = []
        for line in lines:
            if not any(line):
                continue
            if len(line) <= max(file, label) or not line[file].strip() or not line[label].strip():
                raise DataError(f"line {lines.line_num} of {self._list} lacks a file or a label; give it both.")
            rows.append((line[file].strip().removeprefix("./"), line[label].strip()))
        labels = [label_of(word) for _, word in rows]
        if not all(isinstance(label, int) for label in labels):  # then "3" is a name among names
            labels = [normal(word) for _, word in rows]
        return [(name, label) for (name, _), label in zip(rows, labels, strict=True)]

    def count(self, split: str | None) -> int:
        return len(self._rows)

    def entries(self, split: str | None) -> Iterator[Entry]:
        self.num_ignored = self._tree.key().num_files - 1  # but for the list itself
        for name, label in self._rows:
            there = self._tree.has(name)
            self.num_ignored -= there
            yield Entry(shown(name), label, self._tree.content(name) if there else Damaged("it does not exist"))
