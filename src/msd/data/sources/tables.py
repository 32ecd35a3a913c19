"""Parquet files, and folders that Hugging Face's `datasets` saved: read batch by batch with pyarrow (extra `datasets`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from msd.data.decode import Content, Damaged
from msd.data.sources.source import Entry, Key, Label, Source, file_key, normal, shards_in, split_of
from msd.errors import DataError
from msd.reading import Broken, Kind, Name, Notes, open_regular, parse_json, read_model, reason

PARQUET = ".parquet"
INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
EXTRA = 'pip install "multi-student-distillation[datasets]"'
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img", "images"), ("label", "labels", "class")
ROWS_AT_A_TIME = 64
_KIND = Kind("a file of a saved dataset", "save the dataset again", DataError)


class _Feature(Notes):
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)
    kind: str = Field("", alias="_type")
    names: list[str] | None = None


class _Info(Notes):
    features: dict[str, Any] | None = None


class _DataFile(Notes):
    filename: Name


class _State(Notes):
    data_files: list[_DataFile] = Field(alias="_data_files")


class _Splits(Notes):
    splits: list[Name]


class Tables(Source):
    """Rows with an image (bytes, or `{bytes, path}`) and a label (a number, whose names the file may say, or a name)."""

    is_listed = False

    def __init__(self, path: Path, files: dict[Path, str], layout: str):
        super().__init__(path)
        self._files = files
        self.layout = layout  # pyright: ignore[reportAttributeAccessIssue] (two ways to be saved, one way to be read)

    @classmethod
    def found(cls, path: Path) -> Tables | None:
        if not path.is_dir():
            return cls(path, {path: ""}, "Parquet") if path.name.lower().endswith(PARQUET) else None
        if (path / SPLITS).exists():
            splits = read_model(path / SPLITS, _Splits, _KIND).splits
            return cls(path, {file: split for split in splits for file in _saved(path / split)}, "saved dataset")
        if (path / STATE).exists():
            return cls(path, dict.fromkeys(_saved(path), ""), "saved dataset")
        files = shards_in(path, (PARQUET,))
        return cls(path, {file: split_of(file, path) for file in files}, "Parquet") if files else None

    def key(self) -> Key:
        return file_key(*self._files)

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, self._files.values())))

    def names(self) -> tuple[str, ...] | None:
        return self._schema[2]

    def count(self, split: str | None) -> int | None:
        if self.layout != "Parquet":
            return None
        num = 0
        for path in self._chosen(split):
            with _opened(path) as (reader, _):
                num += reader.metadata.num_rows
        return num

    def _chosen(self, split: str | None) -> list[Path]:
        return [path for path, part in self._files.items() if split is None or part == split]

    @cached_property
    def _schema(self) -> tuple[str, str, tuple[str, ...] | None]:
        """The columns of image and label, and the names of the labels' numbers, by the first file."""
        path = next(iter(self._files))
        with _opened(path) as (_, schema):
            features = _features(path, schema)
            columns = list(schema.names)
        image = _column(columns, IMAGE_COLUMNS, [name for name, one in features.items() if one.kind == "Image"])
        label = _column(columns, LABEL_COLUMNS, [name for name, one in features.items() if one.kind == "ClassLabel"])
        if image is None or label is None:
            have = ", ".join(columns[:12])
            raise DataError(f"{path} has no column image and label (it has {have}); rename two of them.")
        names = features[label].names if label in features else None
        return image, label, tuple(map(normal, names)) if names else None

    def entries(self, split: str | None) -> Iterator[Entry]:
        image, label, _ = self._schema
        for path in self._chosen(split):
            with _opened(path) as (reader, schema):
                if image not in schema.names or label not in schema.names:
                    raise DataError(f"{path} lacks the column {image} or {label} that others have; leave it out.")
                number = 0
                for batch in _batches(reader, [image, label]):
                    for one, value in zip(batch.column(image), batch.column(label), strict=True):
                        name = f"{path.name}, row {number}"
                        yield Entry(name, _label(name, value.as_py()), _content(one.as_py()), self._files[path])
                        number += 1


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of one saved part."""
    return [folder / one.filename for one in read_model(folder / STATE, _State, _KIND).data_files]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A reader of a Parquet or Arrow file, and the schema."""
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        from pyarrow import ipc, parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; {EXTRA}.") from error
    try:
        with open_regular(path) as stream:
            if path.name.lower().endswith(PARQUET):
                reader = parquet.ParquetFile(stream)
                yield reader, reader.schema_arrow
            else:
                reader = ipc.open_stream(stream)
                yield reader, reader.schema
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({reason(error)}); restore it, or save the images again.") from error


def _batches(reader: Any, columns: list[str]) -> Iterator[Any]:
    if hasattr(reader, "iter_batches"):
        yield from reader.iter_batches(batch_size=ROWS_AT_A_TIME, columns=columns, use_threads=False)
    else:
        yield from reader


def _features(path: Path, schema: Any) -> dict[str, _Feature]:
    """What `datasets` says of its columns: in the schema, or beside the file."""
    noted = (schema.metadata or {}).get(b"huggingface")
    found: Any = None
    if noted:
        try:
            found = (parse_json(noted.decode("utf-8")).get("info") or {}).get("features")
        except (ValueError, AttributeError) as error:
            raise Broken(f"what it says of its columns is broken: {reason(error)}") from error
    elif (path.parent / INFO).exists():
        found = read_model(path.parent / INFO, _Info, _KIND).features
    if not isinstance(found, dict):
        return {}
    return {name: _Feature.model_validate_json(json.dumps(one)) for name, one in found.items() if isinstance(one, dict)}


def _column(columns: list[str], known: tuple[str, ...], typed: list[str]) -> str | None:
    named = next((name for name in known if name in columns), None)
    return named or (typed[0] if len(typed) == 1 and typed[0] in columns else None)


def _label(name: str, value: Any) -> Label:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{name} has the label {value!r:.60}, neither a number nor a name; mend it, or leave it out.")
    return normal(value) if isinstance(value, str) else value


def _content(value: Any) -> Content | Damaged:
    """An image's bytes; a path that leads elsewhere is not followed."""
    found = value.get("bytes") if isinstance(value, dict) else value
    return found if isinstance(found, bytes) else Damaged("its bytes are not in the file")
