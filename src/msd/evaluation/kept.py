"""Measurements that are kept: each a small JSON file in a run, named by the content that decides it. Needs no torch.

What was measured of the same weights, against the same images, with the same settings is not measured again. The files are
books that can be made again: a broken one is ignored with a warning, and replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msd.errors import MsdError
from msd.files import finite, sha256_json, write_json
from msd.reading import Kind, Notes, read_model

SCHEMA = 1
"""Raise it when a measurement of the same content would give another value."""
MAX_BYTES = 2**20
"""No measurement is nearly as large: what is, is not one."""


_KIND = Kind("a measurement that is kept", "it is ignored, and made again")


class _Stored(Notes):
    value: Any
    seconds: float
    sha256: str


@dataclass(frozen=True)
class Measurement:
    """What is measured (`kind`), and all that decides the value (`of`, JSON)."""

    kind: str
    of: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.kind}-{sha256_json([SCHEMA, self.kind, self.of])[:16]}"


@dataclass
class Kept:
    """The measurements kept in `folder` (None: none are), asked for one after the other.

    `seconds` sums what the answers took to measure, whenever that was.
    """

    folder: Path | None
    warn: Callable[[str], None]
    seconds: float = field(default=0.0, init=False)

    def answer(self, measurement: Measurement, measure: Callable[[], Any]) -> Any:
        """The value: what is kept of it, or what `measure` returns, which is then kept."""
        path = self.folder / f"{measurement.key}.json" if self.folder else None
        found = self._read(path, measurement) if path else None
        if found is None:
            begin = time.perf_counter()
            value = finite(measure())
            found = {"value": value, "seconds": round(time.perf_counter() - begin, 2)}
            if path:
                self._write(path, measurement, found)
        self.seconds += found["seconds"]
        return found["value"]

    def _read(self, path: Path, measurement: Measurement) -> dict[str, Any] | None:
        if not os.path.lexists(path):
            return None
        try:
            content = read_model(path, _Stored, _KIND, MAX_BYTES)
        except MsdError as error:
            self.warn(str(error))
            return None
        found = {"value": content.value, "seconds": content.seconds}
        if content.sha256 != _seal(measurement, found):  # damaged, edited, or of other content
            self.warn(f"{path} is not a measurement as msd keeps it; {_KIND.remedy}.")
            return None
        return found

    def _write(self, path: Path, measurement: Measurement, found: dict[str, Any]) -> None:
        content = {"schema": SCHEMA, "kind": measurement.kind, "of": measurement.of, **found}
        try:
            write_json(path, {**content, "sha256": _seal(measurement, found)})
        except MsdError as error:  # the value itself is there: only the next time has to measure again
            self.warn(f"a measurement is not kept: {error}")


def _seal(measurement: Measurement, found: Mapping[str, Any]) -> str:
    return sha256_json([SCHEMA, measurement.kind, measurement.of, found["value"], found["seconds"]])
