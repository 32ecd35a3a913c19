"""The recipe: all that is known about a run, checked as a whole, and what follows from it (its rows, its identity)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from msd import checks
from msd.errors import RecipeError
from msd.files import sha256_json
from msd.recipe.baselines import BASELINES, DEFAULT_ROWS, baseline_named, normal_rows
from msd.recipe.messages import nearest, sentence
from msd.recipe.overrides import set_value
from msd.recipe.rows import BASELINE, MAIN_ROW, NAME_PATTERN, Row, check_sources, own_overrides, read_row
from msd.recipe.sections import (
    DataSection,
    EvaluationSection,
    FleetSection,
    NetworkSection,
    PairsSection,
    PartitionSection,
    StudentSection,
    TeacherSection,
)
from msd.recipe.stage_sections import ADMSection, DMSection, MatchingSection, PretrainSection, StageSection, TSMSection
from msd.recipe.values import Section, Seed
from msd.recipe.words import PATHS, RANDOM, ROW_PREFIX, STAGES, TEACHER, Precision, StageName

NOT_IDENTITY = {"summary", "cost", "expected", "device", "evaluation", "fleet", "rows"}
"""What may change between two invocations on one run's folder."""
LONE = "lone"
"""Validation context of a row's recipe that stands alone: the row its pairs come from is not in it."""
UNFINISHED = "unfinished"
"""Validation context of a recipe that is still to be changed: its sections are checked, not what they make together."""


class Recipe(Section):
    """Everything about a run. Where a text says "the prototype", it means an experiment on 8x8 digits that preceded this
    package; "not tuned" means that nobody looked for a better value."""

    name: str = Field(pattern=NAME_PATTERN, max_length=100)
    """What the run and its cohort are called. Default: the file's name."""
    summary: str = ""
    """One line that says what the recipe does, for `msd recipes`."""
    cost: str = ""
    """Time it takes, and on what machine."""
    expected: str = ""
    """What it should give, measured."""
    seed: Seed = 0
    """Seed of everything random but the evaluation's (`evaluation.seed`). Other seeds show how far chance goes."""
    device: str = "cpu"
    """cpu, cuda or cuda:N. Default: what every machine has."""
    precision: Precision = "float32"
    """What trainings compute matrix products and convolutions in: float32, or bfloat16 (autocast: weights, averages, losses
    and the matching gradient stay float32), for GPUs that are faster in it. Pairs and scores are float32 always. Default:
    what every number in docs/results.md was measured with."""
    data: DataSection = DataSection()
    network: NetworkSection = NetworkSection()
    teacher: TeacherSection = TeacherSection()
    pretrain: PretrainSection = PretrainSection()
    partition: PartitionSection = PartitionSection()
    student: StudentSection = StudentSection()
    stages: tuple[StageName, ...] = ("dm",)
    """The stages a student goes through, in order; each has the section of its name. Default: distribution matching alone,
    MSD's first stage."""
    pairs: PairsSection = PairsSection()
    tsm: TSMSection = TSMSection()
    dm: DMSection = DMSection()
    adm: ADMSection = ADMSection()
    rows: dict[str, dict[str, Any]] = Field(default=DEFAULT_ROWS, validate_default=True)
    """Students for comparison: a list of baselines by name ([single, dmd]; docs/baselines.md has them all), or a mapping of
    each row to what it changes in this recipe (dotted keys of partition, pairs, student, stages, the stages' sections, and
    precision),
    what it holds `equal` with the recipe's own cohort (updates-per-student, total-updates or total-images), its `batch`
    (whole, or share: a K-th), a `note`, and the `baseline` on which all this goes; {} is the baseline of the row's own name.
    Default: a single student, at equal updates and at the cohort's total; [] for none."""
    evaluation: EvaluationSection = EvaluationSection()
    fleet: FleetSection = FleetSection()

    @field_validator("device")
    @classmethod
    def _a_device(cls, value: str) -> str:
        """Whether it is there is asked when it is used: a plan needs none."""
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", value):
            raise ValueError(f"{checks.shown(value)} is not a device; use cpu, cuda or cuda:N")
        return value

    @field_validator("stages", mode="before")
    @classmethod
    def _known_stages(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        if not value:
            raise ValueError(f"a student goes through at least one stage (known: {', '.join(STAGES)})")
        for name in value:
            if name not in STAGES:
                raise ValueError(f"there is no stage {name!r}{nearest(str(name), STAGES)}")
            if list(value).count(name) > 1:
                raise ValueError(
                    f"{name} is there twice, but its settings are one section; raise {name}.num_updates instead"
                )
        return value

    @field_validator("rows", mode="before")
    @classmethod
    def _normal_rows(cls, rows: Any) -> Any:
        return normal_rows(rows)

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Recipe:
        if (info.context or {}).get(UNFINISHED):
            return self
        for name, settings in self.stage_settings():
            if isinstance(settings, MatchingSection):
                self._check_regression(name, settings)
        if "tsm" in self.stages and (self.stages[0] != "tsm" or len(self.stages) == 1):
            raise ValueError(
                "tsm only gives a student its start: it must be the first of stages, with one after it, as in [tsm, dm]"
            )
        regression = self.dm.regression
        if regression.head_start > 0 and regression.weight == 0:
            raise ValueError("dm.regression.head_start needs dm.regression.weight above 0; set both or neither")
        if self.dm.sigma_low >= self.dm.sigma_high:
            raise ValueError(f"dm.sigma_low {self.dm.sigma_low} must be below dm.sigma_high {self.dm.sigma_high}")
        if self.pretrain.sigma_min >= self.pretrain.sigma_max:
            raise ValueError(
                f"pretrain.sigma_min {self.pretrain.sigma_min} must be below pretrain.sigma_max {self.pretrain.sigma_max}"
            )
        if self.student.start == RANDOM and self.student.critic == "student" and "tsm" not in self.stages:
            raise ValueError(
                "student.critic: student begins the critic with the student's weights, which student.start: random leaves "
                "to chance; put tsm before dm in stages, or set student.critic: teacher"
            )
        if self.dm.weight == 0 and regression.weight == 0:
            raise ValueError("dm.weight and dm.regression.weight are both 0, so nothing would be learned; raise one")
        return self

    def _check_regression(self, name: str, settings: MatchingSection) -> None:
        """A batch of pairs must not be larger than their set."""
        regression, num_pairs = settings.regression, self.pairs.num_pairs
        if regression.weight > 0 and regression.batch_size > num_pairs and not regression.with_replacement:
            raise ValueError(
                f"{name}.regression.batch_size {regression.batch_size} is larger than pairs.num_pairs {num_pairs}; "
                f"make more pairs, or set {name}.regression.with_replacement=true"
            )

    @model_validator(mode="after")
    def _rows_possible(self, info: ValidationInfo) -> Recipe:
        sources = {MAIN_ROW: self.needed_rows()}
        for name in self.rows:
            with _prefixed(f"rows.{name}: "):
                sources[name] = self.variant(self.row(name).overrides).needed_rows()
        if not (info.context or {}).get(LONE):
            check_sources(sources, BASELINES)
        return self

    def needed_rows(self) -> dict[str, str]:
        """Rows whose students this recipe's own need, each by the key that names it."""
        needed = {} if self.pairs.source == TEACHER else {"pairs.source": self.pairs.source}
        start = self.student.start
        return needed | ({"student.start": start.removeprefix(ROW_PREFIX)} if start.startswith(ROW_PREFIX) else {})

    def row(self, name: str) -> Row:
        """One of `rows`, read: its overrides, its baseline's among them, and how it is compared. Raises RecipeError."""
        checks.choice(name, self.rows, "row", error=RecipeError)
        values = self.rows[name]
        if BASELINE in values:
            baseline = baseline_named(values[BASELINE])
            values = {"equal": baseline.equal, "note": baseline.note, **values}
        row = read_row(name, values, tuple(type(self).model_fields))
        return replace(row, overrides=self._on_baseline(values))

    def variant(self, overrides: Mapping[str, Any]) -> Recipe:
        """The recipe of a row (its dotted `overrides`, on its `baseline` if it has one; keys like `equal` are left out). It
        has no rows.

        Raises RecipeError.
        """
        checks.instance(overrides, Mapping, "overrides", "give dotted keys with their values", error=RecipeError)
        return build(self._changed(self._on_baseline(overrides)), lone=True)

    def _on_baseline(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A row's dotted overrides, its baseline's among them: where both set a key, the row's own counts."""
        own = own_overrides(values)
        if BASELINE not in values:
            return own
        # A baseline follows the row's own keys: the critic's rate is that of the student, whoever sets it.
        given = build(self._changed(own), lone=True, unfinished=True)
        return baseline_named(values[BASELINE]).overrides(given) | own

    def _changed(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """The plain values of a row's recipe."""
        content = self.model_dump(mode="json") | {"rows": {}}
        for key, value in self._without_file(dict(overrides)).items():
            set_value(content, key, value)
        return content

    def _without_file(self, changes: dict[str, Any]) -> dict[str, Any]:
        """A row of one part, or of another method, leaves the recipe's partition file behind."""
        num_parts, method = changes.get("partition.num_parts"), changes.get("partition.method", self.partition.method)
        if num_parts == 1 and "partition.method" not in changes:
            changes, method = {"partition.method": "contiguous", **changes}, "contiguous"
        if method != "file" and "partition.file" not in changes:
            return {"partition.file": None, **changes}
        if method == "file" and num_parts is not None:
            raise RecipeError("partition.num_parts changes nothing where a file divides; set partition.method beside it.")
        return changes

    def stage_settings(self) -> tuple[tuple[str, StageSection], ...]:
        """The stages a student goes through, each with its section, in order."""
        return tuple((name, getattr(self, name)) for name in self.stages)

    def fingerprint(self) -> str:
        """Hash of all that decides what a run contains; where and how fast it is computed does not count."""
        return sha256_json(self.identity())

    def identity(self) -> dict[str, Any]:
        """The part of the recipe that a run folder is bound to. Paths are not in it, since identity is content: whoever
        reads what lies there hashes it."""
        content = self.model_dump(mode="json", exclude=NOT_IDENTITY | (set(STAGES) - set(self.stages)))
        for key, is_path in PATHS.items():
            section, name = key.split(".")
            if section in content and (content[section][name] is None or is_path(content[section][name])):
                del content[section][name]
        content["teacher"].pop("blueprint")  # what the teacher is, its hash says
        return content


def section_of(stage: str) -> type[StageSection]:
    """The section that holds a stage's settings. Raises RecipeError for a name that is no stage's."""
    field = Recipe.model_fields.get(stage) if isinstance(stage, str) else None
    if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, StageSection):
        raise RecipeError(f"there is no stage {stage!r}{nearest(str(stage), STAGES)}")
    return field.annotation


def build(content: Mapping[str, Any], lone: bool = False, unfinished: bool = False) -> Recipe:
    """A Recipe from plain values. Raises RecipeError with one sentence for the first thing that is wrong.

    `lone` is for the recipe of one row, whose pairs may come from a row that is not in it; `unfinished` for one that is
    still to be changed.
    """
    try:
        return Recipe.model_validate(content, context={LONE: lone, UNFINISHED: unfinished})
    except ValidationError as error:
        raise RecipeError(sentence(error, Recipe)) from error


@contextmanager
def _prefixed(prefix: str) -> Iterator[None]:
    """Say in whose line an error is."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"{prefix}{error}") from error
