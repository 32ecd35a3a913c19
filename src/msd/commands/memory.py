"""What a plan's trainings need, for people and as plain values: memory by part, which GPU holds them, disk, GPU hours."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msd.commands.console import Output
from msd.commands.tables import Column, fitted, with_note
from msd.fleet.foresight import Outlook
from msd.fleet.gpu_hours import SOURCE, gpu_hours
from msd.fleet.jobs import START, Job, PairsTask
from msd.fleet.plan import Row
from msd.fleet.possible import student_network
from msd.fleet.rehearsal import FIXED, MaterialsOf, Networks, Rehearsal, rehearse, student_materials
from msd.recipe import STUDENT, TEACHER, Recipe, StageSection, section_of
from msd.stages.materials import CRITIC, DISCRIMINATOR, Materials

if TYPE_CHECKING:
    from msd.training.engine import Engine

GIB = 2**30
GPUS = (24, 40, 80, 141)
"""GiB of the GPUs that are asked about."""
RESERVED, SLACK = 1.5, 0.05
"""GiB that driver and libraries take, and the share of the peak that an allocator wastes: assumed, as no GPU was at hand."""
NO_MATTER = {
    *("num_updates", "learning_rate", "critic_learning_rate", "discriminator_learning_rate", "warmup_updates"),
    *("final_rate", "adam_beta1", "clip_norm"),
}
"""Settings of a stage by which its memory, and the operations of an update, do not differ."""
NETWORKS = (TEACHER, STUDENT, CRITIC, DISCRIMINATOR)
NETWORK_COLUMNS = (Column("training", "left", folds=True), *(Column(name) for name in NETWORKS))
PARTS = (*FIXED, "gradients", "activations")
COLUMNS = (
    Column("training", "left", folds=True),
    Column("stage", "left"),
    Column("batch", rank=1),
    *(Column(name, rank=4 + (name not in NETWORKS)) for name in FIXED),
    *(Column(name, rank=3) for name in PARTS[len(FIXED) :]),
    Column("peak"),
)
GPU_COLUMNS = (*(Column(f"{size} GiB") for size in GPUS), Column("GPU hours", rank=2))
"""Left out where the smallest holds everything, as of a laptop's networks."""


def show_needs(recipe: Recipe, outlook: Outlook, output: Output) -> dict[str, Any]:
    """Print and return what every training of the plan needs, and its pairs on disk."""
    stages = [one.plain() for one in _Asking(recipe, outlook).trainings()]
    pairs = [_pairs(job, outlook) for job in outlook.plan.jobs if isinstance(job.task, PairsTask)]
    is_small = all(gpu["fits"] for one in stages for gpu in one["gpus"].values())
    to_spare = f"with {RESERVED} GiB and {SLACK:.0%} to spare (assumed)"
    notes = [
        "peak: gradients come as activations go, so it is less than the sum; what kernels take while they run is not in it",
        f"a GPU of {GPUS[0]} GiB holds each of them, {to_spare}"
        if is_small
        else f"GiB: whether it fits {to_spare}, or the largest micro-batch that does",
        *(f"{one['job']}: {_size(one['bytes'])} on disk ({one['num_pairs']:,} pairs)" for one in pairs),
    ]
    if any(one["gpu_hours"] is not None for one in stages):
        notes.append(f"GPU hours, of one of the jobs: by {SOURCE}")
        notes.append("GPU hours of pairs: no record says; they are made in float32")
    columns = COLUMNS if is_small else (*COLUMNS, *GPU_COLUMNS)
    lines = [_line(one)[: len(columns)] for one in stages]
    table = fitted("memory of a training, by what holds it", columns, lines, output.width)
    for note in (*outlook.notes, *notes):
        table = with_note(table, note)
    output.show(fitted("parameters", NETWORK_COLUMNS, _network_lines(stages), output.width))
    output.show(table)
    return {"stages": stages, "pairs": pairs, "notes": [*outlook.notes, *notes]}


@dataclass
class _Training:
    """A stage that some jobs go through alike."""

    stage: str
    settings: StageSection
    num_micro_batches: int
    rehearsal: Rehearsal
    jobs: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        found, num = self.rehearsal, self.num_micro_batches
        need = found.need(num)
        return {
            "jobs": self.jobs,
            "stage": self.stage,
            "batch_size": found.batch_size,
            "num_micro_batches": num,
            "parameters": dict(found.parameters),
            "bytes": {**found.fixed, "gradients": need.gradients, "activations": need.activations, "peak": need.peak},
            "gpus": {str(size): self._on(size) for size in GPUS},
            "gpu_hours": gpu_hours(round(found.flops_per_update * self.settings.num_updates), found.forward_flops),
        }

    def _on(self, size: int) -> dict[str, Any]:
        room = int((size - RESERVED) * GIB / (1 + SLACK))
        fits = self.rehearsal.need(self.num_micro_batches).peak <= room
        fewest = self.rehearsal.fewest_parts(room)
        return {"fits": fits, "micro_batch": None if fewest is None else self.rehearsal.batch_size // fewest}


class _Asking:
    """Rehearses what the jobs of a plan train, the same once."""

    def __init__(self, recipe: Recipe, outlook: Outlook):
        self._recipe, self._outlook = recipe, outlook
        self._rehearsed: dict[str, Rehearsal] = {}

    def trainings(self) -> list[_Training]:
        found: dict[str, _Training] = {}
        for job in (*self._outlook.first, *self._outlook.plan.jobs):
            if isinstance(job.task, PairsTask):
                continue
            networks = None if job in self._outlook.first else self._networks(job)
            for stage in job.task.stages:
                settings: Any = section_of(stage.name).model_validate(stage.settings)
                matters = {name: value for name, value in stage.settings.items() if name not in NO_MATTER}
                own = networks and [dict(networks.student), networks.critic_is_student]
                same = json.dumps([stage.name, matters, job.task.precision, own], sort_keys=True)
                if same not in self._rehearsed:
                    num = self._recipe.pairs.num_pairs if settings.needs_pairs else 0
                    make = self._materials(networks)
                    self._rehearsed[same] = rehearse(stage.name, settings, make, job.task.precision, num)
                num_parts = job.resources.num_micro_batches
                line = _Training(stage.name, settings, num_parts, self._rehearsed[same])
                hours = line.plain()["gpu_hours"]  # of another number of updates it is another line
                found.setdefault(f"{same}, {num_parts}, {hours}", line).jobs.append(job.name)
        return list(found.values())

    def _networks(self, job: Job) -> Networks:
        outlook, recipe = self._outlook, self._row(job).recipe
        rows = {row.name: row.recipe for row in outlook.plan.rows}
        teacher = outlook.inputs.teacher
        student = student_network(recipe, outlook.inputs, rows.__getitem__)
        return Networks(
            teacher.kind,
            outlook.spec,
            _own(teacher.config or {}),
            _own(student.config if student else teacher.config or {}),
            recipe.student.critic == STUDENT,
            recipe.student.sigma_init,
            teacher.guidance,
            teacher.null_label,
        )

    def _row(self, job: Job) -> Row:
        """The row that a student's training belongs to, or whose students start from it."""
        plan = self._outlook.plan
        own = [row for row in plan.rows if job.key in row.jobs]
        starts = [row for row in plan.rows if any(plan.by_key[key].needs.get(START) == job.key for key in row.jobs)]
        return (own or starts)[0]

    def _materials(self, networks: Networks | None) -> MaterialsOf:
        if networks is not None:
            return student_materials(networks, self._recipe.pairs.num_pairs)

        images = self._outlook.images
        if images is not None:
            _ = images.moments  # of their content, which a rehearsal has none of

        def of_teacher(engine: Engine) -> Materials:
            return Materials(engine, self._recipe.seed, images=images, network=self._recipe.network)

        return of_teacher


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without notes of diffusers' own."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _pairs(job: Job, outlook: Outlook) -> dict[str, Any]:
    """Noise and sample in float32, and the key, of each."""
    num = job.task.num_pairs if isinstance(job.task, PairsTask) else 0
    return {"job": job.name, "num_pairs": num, "bytes": num * (2 * 4 * math.prod(outlook.spec.noise_shape) + 8)}


def _network_lines(stages: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each set of networks, those of a stage without a discriminator with the others' if they are the same."""
    lines: dict[str, dict[str, int]] = {}
    for one in stages:
        known = lines.setdefault(", ".join(one["jobs"]), {})
        known |= one["parameters"]
    return [(jobs, *(f"{known[name]:,}" if name in known else "" for name in NETWORKS)) for jobs, known in lines.items()]


def _line(one: Mapping[str, Any]) -> tuple[str, ...]:
    sizes, num = one["bytes"], one["num_micro_batches"]
    batch = str(one["batch_size"]) if num == 1 else f"{num} x {one['batch_size'] // num}"
    hours = one["gpu_hours"]
    first, *others = one["jobs"]
    return (
        f"{first} and {len(others)} like it" if len(others) > 1 else ", ".join(one["jobs"]),
        one["stage"],
        batch,
        *(_size(sizes[name]) if sizes.get(name) else "" for name in PARTS),
        _size(sizes["peak"]),
        *("yes" if gpu["fits"] else str(gpu["micro_batch"] or "no") for gpu in one["gpus"].values()),
        "" if hours is None else f"{hours:,.0f}",
    )


def _size(num: int) -> str:
    return f"{num / GIB:.1f} GiB" if num >= GIB / 10 else f"{num / 2**20:.1f} MiB"
