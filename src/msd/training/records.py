"""The curves of a training: one JSON object a step, appended; cut back to the checkpoint when a training resumes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msd.errors import MsdError, RunError
from msd.files import finite, write_error, write_text
from msd.reading import Broken, Kind, Measured, parse_json, read_text, set_aside, validated

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 2**30
_KIND = Kind("a training's records", "remove it")


class RecordFile:
    """Appends `{"step": n, name: value...}` lines to `path`, flushed every `every` steps and by `flush`.

    Records wait as tensors, so that the device is asked for all of them at once.
    """

    def __init__(self, path: Path, every: int = 10):
        self.path = path
        self.last: dict[str, float] = {}
        """The newest record that was read back."""
        self._every = every
        self._waiting: list[tuple[int, Mapping[str, Tensor]]] = []

    def cut(self, step: int) -> None:
        """Drop the lines after `step`: they will be written again."""
        kept = [record for record in read_records(self.path) if record["step"] <= step]
        write_text(self.path, "".join(map(_line, kept)))

    def add(self, step: int, record: Mapping[str, Tensor]) -> None:
        self._waiting.append((step, record))
        if len(self._waiting) >= self._every:
            self.flush()

    def flush(self) -> None:
        import torch

        values = [value.float() for _, record in self._waiting for value in record.values()]
        numbers = iter(torch.stack(values).tolist() if values else ())
        lines = []
        for step, record in self._waiting:
            self.last = {name: float(f"{next(numbers):.6g}") for name in record}
            lines.append(_line({"step": step, **self.last}))
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
        except OSError as error:
            raise write_error(self.path, error, sum(map(len, lines))) from error
        self._waiting.clear()


def _line(record: Mapping[str, float]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"


def read_records(path: Path) -> list[dict[str, float]]:
    """All whole lines; a last one cut short by a crash is left out.

    A file with other lines is set aside, and one with those that are whole put in its place.
    """
    if not os.path.lexists(path):
        return []
    try:
        text = read_text(path, _KIND, MAX_BYTES)
    except MsdError as error:
        set_aside(path, error)
        return []
    lines = text.split("\n")[:-1]
    records, problem = [], None
    for number, line in enumerate(lines, start=1):
        try:
            record = validated(parse_json(line), dict[str, int | Measured], _KIND, source=f"line {number} in {path}")
            if not isinstance(record.get("step"), int):
                raise Broken("it lacks a whole number 'step'")
            records.append(record)
        except Broken as error:
            problem = problem or RunError(f"line {number} in {path} is not {_KIND.what} ({error}); {_KIND.remedy}.")
        except RunError as error:
            problem = problem or error
    if problem is not None:
        set_aside(path, problem)
        with contextlib.suppress(MsdError):
            write_text(path, "".join(map(_line, records)))
    return records
