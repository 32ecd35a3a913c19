"""The curves of a training: one JSON object a step, appended; cut back to the checkpoint when a training resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msd.files import write_error, write_text

if TYPE_CHECKING:
    from torch import Tensor


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
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))

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
            lines.append(json.dumps({"step": step, **self.last}) + "\n")
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
        except OSError as error:
            raise write_error(self.path, error, sum(map(len, lines))) from error
        self._waiting.clear()


def read_records(path: Path) -> list[dict[str, float]]:
    """All complete lines; a last one cut short by a crash is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
