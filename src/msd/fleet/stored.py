"""The plan as a run's folder keeps it, so that looking at it needs neither the teacher nor the partition's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from msd.files import write_json
from msd.fleet.jobs import SCHEMA
from msd.reading import Kind, Name, read_model
from msd.recipe import Section
from msd.run import AGAIN

if TYPE_CHECKING:
    from msd.fleet.plan import Plan


class StoredRow(Section):
    """What a run remembers of a row, so that looking at it needs neither the teacher nor the partition's file."""

    name: Name
    note: str
    equal: str | None
    jobs: tuple[Name, ...] = Field(min_length=1)

    @property
    def is_main(self) -> bool:
        return self.equal is None


class StoredPlan(Section):
    """The plan as a run's folder keeps it."""

    rows: tuple[StoredRow, ...]
    jobs: tuple[Name, ...]
    """Keys, in the order of the queue."""

    @classmethod
    def of(cls, planned: Plan) -> StoredPlan:
        rows = tuple(StoredRow(name=row.name, note=row.note, equal=row.equal, jobs=row.jobs) for row in planned.rows)
        return cls(rows=rows, jobs=tuple(job.key for job in planned.jobs))

    def save(self, path: Path) -> None:
        write_json(path, {"schema": SCHEMA, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: Path) -> StoredPlan:
        """Raises RunError when there is none, or none of this version."""
        return read_model(path, cls, _KIND)


_KIND = Kind("a run's plan", AGAIN, schema=SCHEMA, outdated="make the run again in another --out")
