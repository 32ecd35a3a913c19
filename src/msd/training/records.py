"""The curves of a training: one JSON object a step, appended; cut back to the checkpoint when a training resumes."""

from __future__ import annotations

import json
from pathlib import Path

from msd.files import write_text


class RecordFile:
    """Appends `{"step": n, name: value...}` lines to `path`, flushed every `every` steps and by `flush`."""

    def __init__(self, path: Path, every: int = 10):
        self.path = path
        self._every = every
        self._waiting: list[str] = []

    def cut(self, step: int) -> None:
        """Drop the lines after `step`: they will be written again."""
        kept = [record for record in read_records(self.path) if record["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def __call__(self, step: int, record: dict[str, float]) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in record.items()}
        self._waiting.append(json.dumps({"step": step, **rounded}) + "\n")
        if len(self._waiting) >= self._every:
            self.flush()

    def flush(self) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._waiting)
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
