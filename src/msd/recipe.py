"""The recipe: one YAML file that says everything about a run, as frozen models. This file is its documentation.

Unknown keys, wrong types and impossible combinations fail here, before any weight is loaded, with the nearest valid name.
"""

from __future__ import annotations

import difflib
import json
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msd.errors import RecipeError
from msd.files import sha256_json

PACKAGED = Path(__file__).parent / "recipes"

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSection(Section):
    """Real images: used to pretrain a teacher and to evaluate, never by the DM stage."""

    name: Literal["digits"] = "digits"


class NetworkSection(Section):
    """The teacher's U-Net (diffusers UNet2DModel), one entry a resolution level."""

    block_out_channels: tuple[Count, ...] = (24, 48)
    layers_per_block: Count = 1
    norm_num_groups: Count = 8
    attention: bool = False
    """Self-attention in the middle block."""
    dropout: Decay = 0.0

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> NetworkSection:
        for width in self.block_out_channels:
            if width % self.norm_num_groups:
                raise ValueError(f"norm_num_groups {self.norm_num_groups} must divide every width, and {width} it does not")
        return self


class SolverSection(Section):
    """Deterministic sampling of the teacher's ODE."""

    method: Literal["heun", "euler"] = "heun"
    num_steps: Count = 18
    sigma_min: Positive | None = None
    sigma_max: Positive | None = None
    """The teacher's own range unless set. A narrower one spends few steps where the data lives (docs/results.md)."""


class TeacherSection(Section):
    """Where the teacher comes from: `packaged:NAME`, or the path of a folder made by `msd pretrain`."""

    source: str = "packaged:digits"


class PretrainSection(Section):
    """Training a teacher from images with the EDM loss (Karras et al. 2022)."""

    num_updates: Count = 6000
    batch_size: Count = 128
    learning_rate: Positive = 2e-3
    warmup_updates: Whole = 100
    ema_decay: Decay = 0.998
    sigma_data: Positive = 0.5
    sigma_min: Positive = 0.002
    sigma_max: Positive = 80.0
    log_sigma_mean: float = -1.2
    log_sigma_deviation: Positive = 1.2


class PartitionSection(Section):
    """How the conditions are divided among the students."""

    method: Literal["contiguous", "random", "balanced-kmeans", "file"] = "contiguous"
    num_parts: Count = 4
    seed: int | None = None
    """Of random and balanced-kmeans; the recipe's seed unless set."""
    file: str | None = None
    """The user's YAML for method file; a relative path starts at the recipe's folder, or here if given by --set."""

    @model_validator(mode="after")
    def _file_fits_method(self) -> PartitionSection:
        if (self.method == "file") != (self.file is not None):
            raise ValueError("method file needs `file`, and only it does; set both or neither")
        return self


class PairsSection(Section):
    """(noise, condition, teacher's ODE sample) triples for the regression loss."""

    num_pairs: Count = 3000
    shard_size: Count = 500
    solver: SolverSection = SolverSection(num_steps=10)


class RegressionSection(Section):
    """The paired loss: by far the largest single win on small problems (weight 0 switches it and the pairs off)."""

    weight: NonNegative = 1.0
    batch_size: Count = 64
    own_share: Share = 0.0
    """Share of each batch drawn from the pairs of the student's own part; the rest comes from all pairs, whatever their
    part. 0 is the paper's choice, 1 shows a student its own part only. A single student owns everything either way."""
    head_start: Share = 0.0
    """Share of the student's updates that go by regression alone, before DM begins; each costs about a quarter of a full
    one."""
    with_replacement: bool = False
    """Allow a batch larger than the pair set, by drawing pairs more than once."""


class DMSection(Section):
    """Distribution matching, the stage that makes the one-step student."""

    num_updates: Count = 250
    """Student updates. Each is followed by `critic_turns` updates of the critic."""
    batch_size: Count = 64
    learning_rate: Positive = 8e-4
    critic_learning_rate: Positive = 1.5e-3
    critic_turns: Count = 1
    warmup_updates: Whole = 25
    final_rate: Decay = 0.05
    """Learning rates decay along a cosine to this share of their peak."""
    adam_beta1: Decay = 0.0
    clip_norm: Positive = 10.0
    weight: NonNegative = 1.0
    """Of the DM term; 0 leaves regression alone."""
    sigma_low: Positive = 0.02
    sigma_high: Positive = 20.0
    """Noise levels of the DM gradient: Karras law between these. Above about 20 the levels say nothing about 8x8 images."""
    sigma_init: Positive = 80.0
    """The student's one input noise level; must be what the pairs start from when regression is on."""
    critic_log_sigma_mean: float = -1.2
    critic_log_sigma_deviation: Positive = 1.2
    ema_decay: Decay = 0.995
    regression: RegressionSection = RegressionSection()

    @property
    def num_head_start(self) -> int:
        """Student updates by regression alone."""
        return round(self.regression.head_start * self.num_updates)


class EvaluationSection(Section):
    """What is measured, on how many samples."""

    num_samples: Count = 10000
    batch_size: Count = 500
    nearest_neighbours: Count = 3
    """k of precision and recall."""
    seed: int = 1234
    """Noise and labels of the evaluation set: the same for every row of a table."""
    latency_batches: tuple[Count, ...] = (1, 16, 256)
    latency_repeats: Count = 20


class FleetSection(Section):
    """How the students are trained side by side on one machine."""

    max_parallel: Count | None = None
    """Processes at a time; by default as many as there are cores (devices) and as fit into memory."""
    threads: Count = 1
    """CPU threads of each process."""
    checkpoint_every: Count = 50
    """Student updates between two checkpoints."""


class Recipe(Section):
    """Everything about a run."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")
    summary: str = ""
    cost: str = ""
    expected: str = ""
    seed: Whole = 0
    device: str = "cpu"
    data: DataSection = DataSection()
    network: NetworkSection = NetworkSection()
    teacher: TeacherSection = TeacherSection()
    pretrain: PretrainSection = PretrainSection()
    partition: PartitionSection = PartitionSection()
    pairs: PairsSection = PairsSection()
    dm: DMSection = DMSection()
    baselines: tuple[Literal["single", "single-equal-total"], ...] = ("single", "single-equal-total")
    """Single students for comparison: with the updates of one student, and with the total of the cohort."""
    evaluation: EvaluationSection = EvaluationSection()
    fleet: FleetSection = FleetSection()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        regression = self.dm.regression
        if regression.weight > 0 and regression.batch_size > self.pairs.num_pairs and not regression.with_replacement:
            raise ValueError(
                f"dm.regression.batch_size {regression.batch_size} is larger than pairs.num_pairs {self.pairs.num_pairs}; "
                "make more pairs, or set dm.regression.with_replacement=true"
            )
        if regression.head_start > 0 and regression.weight == 0:
            raise ValueError("dm.regression.head_start needs dm.regression.weight above 0; set both or neither")
        if self.dm.sigma_low >= self.dm.sigma_high:
            raise ValueError(f"dm.sigma_low {self.dm.sigma_low} must be below dm.sigma_high {self.dm.sigma_high}")
        if self.pretrain.sigma_min >= self.pretrain.sigma_max:
            raise ValueError(
                f"pretrain.sigma_min {self.pretrain.sigma_min} must be below pretrain.sigma_max {self.pretrain.sigma_max}"
            )
        if self.dm.weight == 0 and regression.weight == 0:
            raise ValueError("dm.weight and dm.regression.weight are both 0, so nothing would be learned; raise one")
        return self

    def fingerprint(self) -> str:
        """Hash of all that decides what a run contains; where and how fast it is computed does not count."""
        return sha256_json(self.identity())

    def identity(self) -> dict[str, Any]:
        """The part of the recipe that a run folder is bound to."""
        return self.model_dump(
            mode="json", exclude={"summary", "cost", "expected", "device", "evaluation", "fleet", "baselines"}
        )


def packaged_recipes() -> dict[str, Path]:
    return {path.stem: path for path in sorted(PACKAGED.glob("*.yaml"))}


def load_recipe(name: str, overrides: list[str] | None = None, **top_level: Any) -> Recipe:
    """Read a packaged recipe by name or any by path, apply dotted `overrides` ("dm.learning_rate=3e-4"), validate.

    `top_level` replaces top-level fields (seed, device) unless None. Raises RecipeError.
    """
    import yaml

    path = _find(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read as YAML ({error}); mend it.") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is not a recipe; start from a packaged one (`msd recipes` lists them).")
    _anchor_partition_file(content, path.parent)
    for override in overrides or []:
        _apply(content, override)
    _anchor_partition_file(content, Path.cwd())
    content.update({key: value for key, value in top_level.items() if value is not None})
    content.setdefault("name", path.stem)
    return validate(content)


def _anchor_partition_file(content: dict[str, Any], folder: Path) -> None:
    """Make a relative `partition.file` absolute, as a run may be continued from elsewhere."""
    section = content.get("partition")
    if isinstance(section, dict) and isinstance(section.get("file"), str):
        section["file"] = str((folder / section["file"]).resolve())


def revised(content: dict[str, Any], overrides: list[str] | None, **top_level: Any) -> Recipe:
    """A stored recipe with dotted `overrides` and top-level values applied. Raises RecipeError."""
    content = json.loads(json.dumps(content))
    for override in overrides or []:
        _apply(content, override)
    return validate(content | {key: value for key, value in top_level.items() if value is not None})


def validate(content: dict[str, Any]) -> Recipe:
    """Build a Recipe from plain values. Raises RecipeError with one sentence for the first thing that is wrong."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(_sentence(error)) from error


def _find(name: str) -> Path:
    packaged = packaged_recipes()
    if name in packaged:
        return packaged[name]
    path = Path(name)
    if path.is_file():
        return path
    hint = _nearest(name, list(packaged))
    raise RecipeError(f"there is no recipe {name!r}, neither packaged nor as a file{hint}; `msd recipes` lists them.")


def _nearest(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(candidates)})" if candidates else ""


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one dotted key in nested dictionaries; the value is read as YAML."""
    import yaml

    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"--set {override!r} is not KEY=VALUE; write e.g. --set dm.learning_rate=3e-4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(
            f"--set {override!r}: the value is not YAML; quote it, or write a plain number or word."
        ) from error
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise RecipeError(f"--set {override!r}: {parent} is a value, not a section; see `msd recipes` for the keys.")
    content[last] = value


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        valid = _keys_at(first["loc"][:-1])
        return f"{where} is not a recipe key{_nearest(str(first['loc'][-1]), valid)}"
    message = first["msg"].removeprefix("Value error, ")
    place = f"{where}: " if where else ""
    given = f" (got {first['input']!r})" if first["type"] != "value_error" and where else ""
    return f"{place}{message[0].lower() + message[1:]}{given}; change it in the recipe or with --set."


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Valid keys of the section at `location`."""
    section: type[BaseModel] = Recipe
    for step in location:
        annotation = section.model_fields[str(step)].annotation
        options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return list(section.model_fields)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)
