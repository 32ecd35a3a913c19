"""The plan of a recipe: its rows, the jobs they are made by, what each waits for and what they share. No torch here.

A function of the recipe and of the content that it names (teacher, start, partition file): same content, same hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from msd import checks
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.errors import DataError, RecipeError, RunError
from msd.files import write_json
from msd.fleet.jobs import SCHEMA, Job, PairsTask, Resources, StageTask, TrainTask, job_seed, student_use
from msd.fleet.starts import Start, check_start, read_start
from msd.reading import Kind, Name, read_model
from msd.recipe import MAIN_ROW, STUDENT, TEACHER, Recipe, RoleSection, Section
from msd.recipe import Row as RowRules
from msd.run import AGAIN
from msd.teachers.facts import TeacherFacts, read_teacher


@dataclass(frozen=True)
class Inputs:
    """The content that a recipe names, as far as a plan looks at it."""

    teacher: TeacherFacts
    starts: Mapping[str, Start] = field(default_factory=dict)
    """By the path that the recipe gives."""


@dataclass(frozen=True)
class Row:
    """A line of a results table: the recipe that defines it, its partition, and its students' jobs in order of parts."""

    name: str
    note: str
    equal: str | None
    """What is held equal with the main row; None for that one itself."""
    recipe: Recipe
    partition: Partition
    jobs: tuple[str, ...]

    @property
    def is_main(self) -> bool:
        return self.equal is None


@dataclass(frozen=True)
class Plan:
    """Rows in the order of the table, jobs in the order of the queue: longest path first, so none before what it needs."""

    rows: tuple[Row, ...]
    jobs: tuple[Job, ...]

    @property
    def main(self) -> Row:
        return next(row for row in self.rows if row.is_main)

    @cached_property
    def by_key(self) -> dict[str, Job]:
        return {job.key: job for job in self.jobs}

    def closure(self, keys: Iterable[str]) -> tuple[Job, ...]:
        """The jobs of these keys and all that they need, in the order of the queue."""
        wanted: set[str] = set()
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key not in wanted:
                wanted.add(key)
                waiting += self.by_key[key].needs.values()
        return tuple(job for job in self.jobs if job.key in wanted)

    def shared_by(self, key: str) -> tuple[str, ...]:
        """The rows that a job works for."""
        return tuple(row.name for row in self.rows if any(job.key == key for job in self.closure(row.jobs)))


def read_inputs(recipe: Recipe) -> Inputs:
    """Look at the teacher and the starts that the recipe and its rows name. Raises WeightsError."""
    checks.instance(recipe, Recipe, "recipe", "read one with load_recipe(name)", error=RecipeError)
    return Inputs(read_teacher(recipe.teacher.source), read_starts(recipe))


def read_starts(recipe: Recipe) -> dict[str, Start]:
    """What students of the recipe and its rows start from, where that is not the teacher. Raises WeightsError."""
    recipes = [recipe, *(recipe.variant(recipe.row(name).overrides) for name in recipe.rows)]
    paths = {one.student.start for one in recipes if one.student.start != TEACHER}
    return {path: read_start(Path(path)) for path in sorted(paths)}


def plan(recipe: Recipe, inputs: Inputs) -> Plan:
    """Rows and jobs. Raises PartitionError, DataError, RecipeError or WeightsError for what cannot be done."""
    checks.instance(recipe, Recipe, "recipe", "read one with load_recipe(name)", error=RecipeError)
    checks.instance(inputs, Inputs, "inputs", "look at them with read_inputs(recipe)", error=RecipeError)
    return _Planner(recipe, inputs).plan()


class _Planner:
    """Builds the plan row by row; a job that two rows ask for is one job."""

    def __init__(self, recipe: Recipe, inputs: Inputs):
        self._recipe, self._inputs = recipe, inputs
        self._jobs: dict[str, Job] = {}
        self._rows: dict[str, Row] = {}

    def plan(self) -> Plan:
        # The main row last, as tables read.
        names = [*self._recipe.rows, MAIN_ROW]
        for name in names:
            self._row(name)
        return Plan(tuple(self._rows[name] for name in names), _queue(self._jobs.values()))

    def _row(self, name: str) -> Row:
        if name in self._rows:
            return self._rows[name]
        settings = None if name == MAIN_ROW else self._recipe.row(name)
        recipe = self._recipe if settings is None else self._recipe.variant(settings.overrides)
        partition = self._partition(recipe)
        if settings is not None:
            recipe = self._held_equal(settings, recipe, partition)
        jobs = tuple(self._student(name, recipe, partition, part) for part in range(partition.num_parts))
        equal, note = (None, _students(partition.num_parts)) if settings is None else (settings.equal, settings.note)
        row = Row(name, note, equal, recipe, partition, tuple(job.key for job in jobs))
        self._rows[name] = row
        return row

    def _partition(self, recipe: Recipe) -> Partition:
        settings, teacher = recipe.partition, self._inputs.teacher
        request = SplitRequest(
            num_conditions=teacher.num_conditions,
            num_parts=settings.num_parts,
            seed=recipe.seed if settings.seed is None else settings.seed,
            embeddings=teacher.embeddings,
            file=Path(settings.file) if settings.file else None,
            classes=teacher.classes,
        )
        return make_partition(settings.method, request, teacher.prior)

    def _held_equal(self, row: RowRules, recipe: Recipe, partition: Partition) -> Recipe:
        """The row's recipe with its batches and updates set so that what it claims to hold equal is equal."""
        base = self._partition(self._recipe)
        divisor = base.num_parts if row.batch == "share" else 1
        per_student = Fraction(base.num_parts, partition.num_parts)
        factor = {
            "updates-per-student": Fraction(1),
            "total-updates": per_student,
            "total-images": per_student * divisor,
        }[row.equal]
        return _scaled(recipe, factor, divisor)

    def _student(self, row: str, recipe: Recipe, partition: Partition, part: int) -> Job:
        self._check_pairs(recipe, partition, part)
        pairs = self._pairs(recipe) if _needs_pairs(recipe) else None
        start = recipe.student.start if recipe.student.start != TEACHER else None
        if start is not None:
            check_start(self._inputs.starts[start], self._inputs.teacher, recipe, partition, part)
        task = TrainTask(
            seed=job_seed(recipe.seed, part),
            stages=tuple(
                StageTask(name=name, settings=settings.model_dump(mode="json")) for name, settings in recipe.stage_settings()
            ),
            teacher=self._inputs.teacher.hash,
            start=self._inputs.starts[start].hash if start else None,
            sigma_init=recipe.student.sigma_init,
            partition=partition.to_json(),
            part=part,
            pairs=pairs.task.hash if pairs else None,
        )
        base = STUDENT if row == MAIN_ROW else row
        job = Job(
            name=base if partition.num_parts == 1 and row != MAIN_ROW else f"{base}-{part}",
            task=task,
            needs={"pairs": pairs.key} if pairs else {},
            teacher=recipe.teacher.source,
            start=start,
            resources=_resources(recipe),
        )
        return self._add(job)

    def _pairs(self, recipe: Recipe) -> Job:
        settings, teacher = recipe.pairs, self._inputs.teacher
        common: dict[str, Any] = {
            "seed": recipe.seed,
            "teacher": teacher.hash,
            "num_pairs": settings.num_pairs,
            "shard_size": settings.shard_size,
            "prior": teacher.prior,
        }
        needs: dict[str, str] = {}
        if settings.source == TEACHER:
            low, high = settings.solver.sigma_min or teacher.sigma_min, settings.solver.sigma_max or teacher.sigma_max
            if low >= high:
                raise RecipeError(f"pairs.solver: sigma_min {low:g} is not below sigma_max {high:g}; lower it.")
            solver = {"method": settings.solver.method, "num_steps": settings.solver.num_steps}
            task = PairsTask(**common, solver=solver | {"sigma_min": low, "sigma_max": high})
        else:
            source = self._row(settings.source)
            needs = {student_use(part): key for part, key in enumerate(source.jobs)}
            hashes = tuple(self._by_key(key).task.hash for key in source.jobs)
            task = PairsTask(**common, students=hashes, partition=source.partition.to_json())
        name = "pairs" if settings.source == TEACHER else f"pairs-of-{settings.source}"
        resources = _resources(recipe).model_copy(update={"threads": 0})
        return self._add(Job(name=name, task=task, needs=needs, teacher=recipe.teacher.source, resources=resources))

    def _add(self, job: Job) -> Job:
        """The job, or the one that is planned already for the same task."""
        return self._jobs.setdefault(job.task.hash, job)

    def _by_key(self, key: str) -> Job:
        return next(job for job in self._jobs.values() if job.key == key)

    def _check_pairs(self, recipe: Recipe, partition: Partition, part: int) -> None:
        """Fail before any training when a part would have too few pairs of its own for a batch."""
        regression, num_pairs = recipe.dm.regression, recipe.pairs.num_pairs
        own, expected = round(regression.own_share * regression.batch_size), partition.part_prior[part] * num_pairs
        if _needs_pairs(recipe) and not regression.with_replacement and expected < own:
            raise DataError(
                f"part {part} will have about {expected:.0f} pairs of its own, fewer than the {own} of a batch; "
                "set dm.regression.own_share lower, or pairs.num_pairs higher."
            )


def pretrain_job(recipe: Recipe, data_hash: str) -> Job:
    """The training of a teacher from images: a job of one stage."""
    settings = recipe.pretrain.model_dump(mode="json")
    task = TrainTask(
        seed=recipe.seed,
        stages=(StageTask(name="pretrain", settings=settings),),
        data=data_hash,
        network=recipe.network.model_dump(mode="json"),
        prior=recipe.data.prior,
    )
    return Job(name=TEACHER, task=task, data=recipe.data, resources=_resources(recipe))


def _resources(recipe: Recipe) -> Resources:
    fleet = recipe.fleet
    return Resources(device=recipe.device, threads=fleet.threads, checkpoint_every=fleet.checkpoint_every)


def _needs_pairs(recipe: Recipe) -> bool:
    regressions = (getattr(settings, "regression", None) for _, settings in recipe.stage_settings())
    return any(regression is not None and regression.weight > 0 for regression in regressions)


def _scaled(recipe: Recipe, factor: Fraction, divisor: int) -> Recipe:
    """Every stage with `factor` times the updates and a `divisor`-th of every batch."""

    def divided(settings: BaseModel, where: str) -> BaseModel:
        changes: dict[str, Any] = {}
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, BaseModel):
                changes[name] = divided(value, f"{where}.{name}")
            elif name == "batch_size":
                if value % divisor:
                    raise RecipeError(
                        f"{where}.{name} {value} cannot be shared by {divisor} parts; choose a multiple of it."
                    )
                changes[name] = value // divisor
        return settings.model_copy(update=changes)

    sections: dict[str, RoleSection] = {}
    for name, settings in recipe.stage_settings():
        scaled: Any = divided(settings, name)
        sections[name] = scaled.model_copy(update={"num_updates": max(1, round(scaled.num_updates * factor))})
    return recipe.model_copy(update=sections)


def cost(job: Job) -> int:
    """A rough measure of a job's work, for the order of the queue: images through a network."""
    task = job.task
    if isinstance(task, PairsTask):
        return task.num_pairs * (2 * task.solver["num_steps"] if task.solver else 1)
    return sum(stage.settings["num_updates"] * stage.settings["batch_size"] for stage in task.stages)


def _queue(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Jobs by the length of the longest path that starts with them, longest first; refuses a cycle."""
    by_key = {job.key: job for job in jobs}
    waited_for: dict[str, list[str]] = {key: [] for key in by_key}
    for job in by_key.values():
        for need in job.needs.values():
            waited_for[need].append(job.key)
    lengths: dict[str, int] = {}

    def length(key: str, above: tuple[str, ...]) -> int:
        if key in above:
            raise RunError(f"jobs wait for each other: {' -> '.join([*above[above.index(key) :], key])}; break the circle.")
        if key not in lengths:
            after = [length(other, (*above, key)) for other in waited_for[key]]
            lengths[key] = cost(by_key[key]) + max(after, default=0)
        return lengths[key]

    for key in by_key:
        length(key, ())
    return tuple(sorted(by_key.values(), key=lambda job: (-lengths[job.key], job.name)))


def _students(num: int) -> str:
    return f"{num} students, routed" if num > 1 else "one student"


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
