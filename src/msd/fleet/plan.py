"""The plan of a recipe: its rows, the jobs they are made by, what each waits for and what they share. No torch here.

A function of the recipe and of the content that it names (teacher, start, partition file): same content, same hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from msd import checks
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.errors import DataError, RecipeError
from msd.fleet.inputs import Inputs
from msd.fleet.jobs import PAIRS, START, Job, PairsTask, Resources, StageTask, TrainTask, job_seed, student_use
from msd.fleet.possible import check_networks
from msd.fleet.queue import queue
from msd.fleet.starts import check_start
from msd.recipe import MAIN_ROW, RANDOM, ROW_PREFIX, STUDENT, TEACHER, MatchingSection, Recipe, StageSection
from msd.recipe import Row as RowRules


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


def plan(recipe: Recipe, inputs: Inputs) -> Plan:
    """Rows and jobs. Raises PartitionError, DataError, RecipeError or WeightsError for what cannot be done."""
    checks.instance(recipe, Recipe, "recipe", "read one with load_recipe(name)", error=RecipeError)
    checks.instance(inputs, Inputs, "inputs", "look at them with read_inputs(recipe)", error=RecipeError)
    return _Planner(recipe, inputs).plan()


@dataclass(frozen=True)
class _Begin:
    """What a student starts from, as its task and its job say it."""

    start: str | None = None
    path: str | None = None
    needs: Mapping[str, str] = field(default_factory=dict)
    weights: Literal["start", "random"] = "start"
    reduce: float | None = None


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
        return Plan(tuple(self._rows[name] for name in names), queue(self._jobs.values()))

    def _row(self, name: str) -> Row:
        if name in self._rows:
            return self._rows[name]
        settings = None if name == MAIN_ROW else self._recipe.row(name)
        recipe = self._recipe if settings is None else self._recipe.variant(settings.overrides)
        partition = self._partition(recipe)
        if settings is not None:
            recipe = self._held_equal(settings, recipe, partition)
        check_networks(recipe, self._inputs, lambda other: self._row(other).recipe)
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
        stages, begin = recipe.stage_settings(), self._begin(recipe, partition, part)
        if stages[0][1].is_shared:
            begin = self._shared(row, recipe, stages[0], begin)
            stages = stages[1:]
        base = STUDENT if row == MAIN_ROW else row
        name = base if partition.num_parts == 1 and row != MAIN_ROW else f"{base}-{part}"
        return self._training(name, recipe, stages, begin, partition, part)

    def _shared(self, row: str, recipe: Recipe, stage: tuple[str, StageSection], begin: _Begin) -> _Begin:
        """What students start from whose first stage is one for all of them: a job of its own, on all conditions."""
        whole = Partition.whole(self._inputs.teacher.prior)
        # Whichever row asks first: most tables have one of it, which is called by the stage's name alone.
        name = f"{row}-{stage[0]}" if any(job.name == stage[0] for job in self._jobs.values()) else stage[0]
        job = self._training(name, recipe, (stage,), begin, whole, 0, seed=recipe.seed)
        return _Begin(start=job.task.hash, needs={START: job.key})

    def _training(
        self,
        name: str,
        recipe: Recipe,
        stages: tuple[tuple[str, StageSection], ...],
        begin: _Begin,
        partition: Partition,
        part: int,
        *,
        seed: int | None = None,
    ) -> Job:
        _check_micro_batches(recipe, stages)
        pairs = self._pairs(recipe) if any(settings.needs_pairs for _, settings in stages) else None
        data = recipe.data if any(settings.needs_images for _, settings in stages) else None
        task = TrainTask(
            seed=job_seed(recipe.seed, part) if seed is None else seed,
            stages=tuple(StageTask(name=stage, settings=settings.model_dump(mode="json")) for stage, settings in stages),
            teacher=self._inputs.teacher.hash,
            start=begin.start,
            weights=begin.weights,
            reduce=begin.reduce,
            critic=recipe.student.critic,
            sigma_init=recipe.student.sigma_init,
            partition=partition.to_json(),
            part=part,
            pairs=pairs.task.hash if pairs else None,
            data=self._inputs.images if data else None,
            precision=recipe.precision,
        )
        job = Job(
            name=name,
            task=task,
            needs=dict(begin.needs) | ({PAIRS: pairs.key} if pairs else {}),
            teacher=recipe.teacher.source,
            guidance=recipe.teacher.guidance,
            start=begin.path,
            data=data,
            resources=_resources(recipe),
        )
        return self._add(job)

    def _begin(self, recipe: Recipe, partition: Partition, part: int) -> _Begin:
        """What the recipe's student of a part starts from."""
        settings = recipe.student
        if settings.start == TEACHER:
            return _Begin(reduce=settings.reduce)
        if settings.start == RANDOM:
            return _Begin(weights=RANDOM, reduce=settings.reduce)
        if not settings.start.startswith(ROW_PREFIX):
            start = self._inputs.starts[settings.start]
            check_start(start, self._inputs.teacher, recipe, partition, part)
            return _Begin(start=start.hash, path=settings.start, reduce=settings.reduce)
        source = self._row(settings.start.removeprefix(ROW_PREFIX))
        if len(source.jobs) > 1 and source.partition.hash != partition.hash:
            raise RecipeError(
                f"student.start: row {source.name} has {len(source.jobs)} students of other parts; name a row of one "
                "student, or one with the same partition."
            )
        theirs = source.recipe.student.sigma_init
        if theirs != settings.sigma_init:
            raise RecipeError(
                f"student.start: the students of row {source.name} start from noise level {theirs:g}, these from "
                f"{settings.sigma_init:g}; give both one student.sigma_init."
            )
        key = source.jobs[part if len(source.jobs) > 1 else 0]
        return _Begin(start=self._by_key(key).task.hash, needs={START: key}, reduce=settings.reduce)

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
        source, guidance = recipe.teacher.source, recipe.teacher.guidance
        job = Job(name=name, task=task, needs=needs, teacher=source, guidance=guidance, resources=resources)
        return self._add(job)

    def _add(self, job: Job) -> Job:
        """The job, or the one that is planned already for the same task."""
        return self._jobs.setdefault(job.task.hash, job)

    def _by_key(self, key: str) -> Job:
        return next(job for job in self._jobs.values() if job.key == key)

    def _check_pairs(self, recipe: Recipe, partition: Partition, part: int) -> None:
        """Fail before any training when a part would have too few pairs of its own for a batch."""
        expected = partition.part_prior[part] * recipe.pairs.num_pairs
        for name, settings in recipe.stage_settings():
            if not isinstance(settings, MatchingSection) or not settings.needs_pairs:
                continue
            regression = settings.regression
            own = round(regression.own_share * regression.batch_size)
            if not regression.with_replacement and expected < own:
                raise DataError(
                    f"part {part} will have about {expected:.0f} pairs of its own, fewer than the {own} of a batch; "
                    f"set {name}.regression.own_share lower, or pairs.num_pairs higher."
                )


def pretrain_job(recipe: Recipe, data_hash: str) -> Job:
    """The training of a teacher from images: a job of one stage."""
    _check_micro_batches(recipe, [("pretrain", recipe.pretrain)])
    settings = recipe.pretrain.model_dump(mode="json")
    task = TrainTask(
        seed=recipe.seed,
        stages=(StageTask(name="pretrain", settings=settings),),
        data=data_hash,
        network=recipe.network.model_dump(mode="json"),
        precision=recipe.precision,
        prior=recipe.data.prior,
    )
    return Job(name=TEACHER, task=task, data=recipe.data, resources=_resources(recipe))


def _check_micro_batches(recipe: Recipe, stages: Iterable[tuple[str, StageSection]]) -> None:
    """Fail before any training where a batch cannot be split into equal micro-batches."""
    for _, settings in stages:
        for size in settings.batch_sizes:
            checks.micro_batches(size, recipe.fleet.num_micro_batches)


def _resources(recipe: Recipe) -> Resources:
    fleet = recipe.fleet
    return Resources(
        device=recipe.device,
        threads=fleet.threads,
        checkpoint_every=fleet.checkpoint_every,
        num_micro_batches=fleet.num_micro_batches,
    )


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

    sections: dict[str, StageSection] = {}
    for name, settings in recipe.stage_settings():
        if settings.is_shared:  # the cohort has it once, and so has everyone
            continue
        scaled: Any = divided(settings, name)
        sections[name] = scaled.model_copy(update={"num_updates": max(1, round(scaled.num_updates * factor))})
    return recipe.model_copy(update=sections)


def _students(num: int) -> str:
    return f"{num} students, routed" if num > 1 else "one student"
