"""Before the students: the partition and the pairs of a run, made once and found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msd.commands.console import Output
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.data.pairs import PairsPlan, PairsReport, make_pairs
from msd.diffusion.solvers import Solver
from msd.errors import DataError
from msd.files import write_json
from msd.run import Run
from msd.teachers.folder import Teacher, load_teacher
from msd.training.engine import Engine


def open_teacher(run: Run) -> Teacher:
    """The recipe's teacher, on the recipe's device."""
    return load_teacher(run.recipe.teacher.source, Engine.on(run.recipe.device).device)


def class_prior(teacher: Teacher) -> tuple[float, ...]:
    """How often each class occurred in the teacher's training set, as recorded with it; uniform if it was not."""
    return teacher.facts.prior


def ensure_partition(run: Run, teacher: Teacher) -> Partition:
    """Load the run's partition, or make, save and report it."""
    if run.partition.exists():
        return Partition.load(run.partition)
    settings = run.recipe.partition
    request = SplitRequest(
        num_conditions=teacher.denoiser.spec.num_conditions,
        num_parts=settings.num_parts,
        seed=run.recipe.seed if settings.seed is None else settings.seed,
        embeddings=teacher.facts.embeddings,
        file=Path(settings.file) if settings.file else None,
    )
    partition = make_partition(settings.method, request, class_prior(teacher))
    partition.save(run.partition)
    write_json(run.partition_report, partition.report(teacher.facts.embeddings()))
    return partition


def partition_report(run: Run, teacher: Teacher) -> dict[str, Any]:
    return ensure_partition(run, teacher).report(teacher.facts.embeddings())


def ensure_pairs(run: Run, teacher: Teacher, output: Output) -> PairsReport:
    """Make the pairs that are missing or damaged; names the damaged shards."""
    settings, spec = run.recipe.pairs, teacher.denoiser.spec
    plan = PairsPlan(
        num_pairs=settings.num_pairs,
        shard_size=settings.shard_size,
        solver=Solver(
            settings.solver.method,
            settings.solver.num_steps,
            settings.solver.sigma_min or spec.sigma_min,
            settings.solver.sigma_max or spec.sigma_max,
        ),
        prior=class_prior(teacher),
        seed=run.recipe.seed,
    )
    with run.timed("pairs"), output.progress(f"pairs by {plan.solver.name}", plan.num_pairs) as advance:
        report = make_pairs(teacher, run.pairs, plan, advance)
    if report.damaged:
        output.say(f"damaged or missing, made again: {', '.join(report.damaged)}")
    return report


def check_part_pairs(partition: Partition, run: Run) -> None:
    """Fail before any training when a part would have too few pairs of its own for a batch. Raises DataError."""
    regression, num_pairs = run.recipe.dm.regression, run.recipe.pairs.num_pairs
    own = round(regression.own_share * regression.batch_size)
    if regression.weight == 0 or regression.with_replacement:
        return
    for part, prior in enumerate(partition.part_prior):
        if prior * num_pairs < own:
            raise DataError(
                f"part {part} will have about {prior * num_pairs:.0f} pairs of its own, fewer than the {own} of a batch; "
                "set dm.regression.own_share lower, or pairs.num_pairs higher."
            )
