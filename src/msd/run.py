"""A run: the folder that one recipe fills. This file is the map of what lies where."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from msd import checks
from msd.errors import RunError
from msd.files import ensure_writable, remove_leftovers, write_json
from msd.owner import owned
from msd.reading import Kind, Stored, read_kept, read_model
from msd.recipe import PRETRAIN, Recipe, restored

RECIPE, COHORT, ROWS, EVALUATIONS = "recipe.json", "cohort", "rows", "evaluations"
SCHEMA = 3
AGAIN = "remove it and give the command that made this run again: what is finished is kept"
"""What mends every file of a run that says what the run is about, as that follows from the recipe."""


_KIND = Kind("a run's recipe", AGAIN, schema=SCHEMA, outdated="make it again in another --out")
_Timings = dict[str, Annotated[float, Field(ge=0)]]


class _StoredRecipe(Stored):
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's folder and recipe. `Run.at` names one without touching the disk, `begin` makes it, `Run.open` looks at one."""

    folder: Path
    recipe: Recipe

    @classmethod
    def at(cls, recipe: Recipe, folder: str | Path) -> Run:
        """The run of `recipe` in `folder`, new or to be continued. Raises RunError if another recipe made what is there."""
        folder = checks.path(folder, "a run's folder", error=RunError)
        if os.path.lexists(folder / RECIPE):
            existing = cls.open(folder).recipe
            if existing.fingerprint() != recipe.fingerprint():
                differing = differences(existing.identity(), recipe.identity())
                raise RunError(
                    f"{folder} was made by another recipe (it differs in {', '.join(differing[:3])}"
                    f"{', ...' if len(differing) > 3 else ''}); choose another --out, or remove that folder."
                )
        return cls(folder, recipe)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run. Raises RunError."""
        folder = checks.path(folder, "a run's folder", error=RunError)
        path = folder / RECIPE
        if not os.path.lexists(path):
            raise RunError(f"{folder} is not a run's folder (no {RECIPE}); give the --out of `msd distill` or `msd demo`.")
        stored = read_model(path, _StoredRecipe, _KIND)
        return cls(folder, restored(stored.recipe, _KIND, source=str(path)))

    @contextmanager
    def owned(self, what: str) -> Iterator[Run]:
        """Work in the folder as its only owner, named `what` to others. Raises RunError naming one that works there."""
        with owned(self.folder, what):
            Run.at(self.recipe, self.folder)  # another command may have begun the run since this one looked
            yield self

    def begin(self) -> None:
        """Bind the folder to the recipe, once all that the recipe asks for is known to be possible. Raises RunError."""
        ensure_writable(self.folder)
        remove_leftovers(self.folder)
        write_json(self.folder / RECIPE, {"schema": SCHEMA, "recipe": self.recipe.model_dump(mode="json")})

    @property
    def resolved(self) -> Recipe:
        """The recipe with the run's own teacher where it says that the run trains one."""
        teacher = self.recipe.teacher
        if teacher.source == PRETRAIN:
            teacher = teacher.model_copy(update={"source": str(self.teacher.absolute())})
        return self.recipe.model_copy(update={"teacher": teacher})

    @property
    def partition(self) -> Path:
        return self.folder / "partition.json"

    @property
    def partition_report(self) -> Path:
        return self.folder / "partition-report.json"

    @property
    def teacher(self) -> Path:
        """A teacher pretrained in this run."""
        return self.folder / "teacher"

    @property
    def features(self) -> Path:
        """A feature network trained in this run."""
        return self.folder / "features"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def jobs(self) -> Path:
        """A folder for every job, named by its key."""
        return self.folder / "jobs"

    @property
    def cohort(self) -> Path:
        return self.folder / COHORT

    @property
    def rows(self) -> Path:
        return self.folder / ROWS

    def row(self, name: str) -> Path:
        """The cohort of a row that is not the main one."""
        return self.rows / name

    @property
    def evaluations(self) -> Path:
        """What was measured, each measurement known by its content."""
        return self.folder / EVALUATIONS

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def metrics(self) -> Path:
        return self.report / "metrics.json"

    @property
    def _timings(self) -> Path:
        return self.folder / "timings.json"

    def timings(self) -> dict[str, float]:
        """Wall seconds spent per piece of work, over all invocations."""
        return dict(read_kept(self._timings, _Timings, "a run's timings", {}))

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Add the block's wall time to the run's books, whether it succeeds or not."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            timings = self.timings()
            timings[work] = round(timings.get(work, 0.0) + time.perf_counter() - begin, 2)
            write_json(self._timings, timings)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the values in which two nested dictionaries differ."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}")
    return found
