"""`msd distill`: train the students of a run side by side, then assemble the cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msd.cohort.manifest import Manifest, assemble
from msd.commands.console import Output, condition_list
from msd.commands.prepare import check_part_pairs, ensure_pairs, ensure_partition, open_teacher
from msd.conditions.partition import Partition
from msd.errors import RunError
from msd.fleet.jobs import Job, job_seed, read_status
from msd.fleet.local import is_done, num_fitting, run_jobs
from msd.run import Run
from msd.teachers.facts import teacher_folder
from msd.teachers.folder import Teacher


def make_job(run: Run, name: str, partition: Partition, part: int, num_updates: int) -> Job:
    recipe = run.recipe
    return Job(
        name=name,
        folder=run.jobs / name,
        # Absolute, as a worker may be started from elsewhere.
        teacher=recipe.teacher.source
        if recipe.teacher.source.startswith("packaged:")
        else str(teacher_folder(recipe.teacher.source).resolve()),
        pairs=run.pairs if recipe.dm.regression.weight > 0 else None,
        partition=partition.to_json(),
        part=part,
        settings=recipe.dm.model_copy(update={"num_updates": num_updates}),
        seed=job_seed(recipe.seed, name),
        device=recipe.device,
        threads=recipe.fleet.threads,
        checkpoint_every=recipe.fleet.checkpoint_every,
        sigma_init=recipe.student.sigma_init,
    )


def student_jobs(run: Run, partition: Partition) -> list[Job]:
    updates = run.recipe.dm.num_updates
    return [make_job(run, f"student-{part}", partition, part, updates) for part in range(partition.num_parts)]


def baseline_jobs(run: Run, partition: Partition) -> list[Job]:
    """Single students of all conditions: with one student's updates, and with the whole cohort's."""
    recipe, whole = run.recipe, Partition.whole(partition.prior)
    totals = [name for name in recipe.rows if recipe.row(name).equal != "updates-per-student"]
    return [
        make_job(run, name, whole, 0, recipe.dm.num_updates * (partition.num_parts if name in totals else 1))
        for name in recipe.rows
    ]


def train(run: Run, teacher: Teacher, jobs: Sequence[Job], output: Output) -> None:
    """Run jobs in a live table. Raises StudentFailed or Interrupted."""
    fitting = run.recipe.fleet.max_parallel or num_fitting(
        teacher.denoiser.num_parameters(), run.recipe.fleet.threads, run.recipe.device
    )
    describe = {job.name: condition_list(job.partition["parts"][job.part]) for job in jobs}
    with output.live_jobs(describe) as on_change:
        run_jobs(jobs, min(fitting, len(jobs)), on_change)


def assemble_cohort(run: Run, partition: Partition, jobs: Sequence[Job], folder: Path, name: str) -> Manifest:
    return assemble(folder, name, partition, [job.result for job in jobs], recipe=run.recipe.model_dump(mode="json"))


def distill(run: Run, output: Output, students: Sequence[int] | None = None) -> dict[str, Any]:
    """Prepare, train the chosen students (None: all), assemble once all parts are done; returns a summary.

    Raises RunError for a student that the partition does not have.
    """
    teacher = open_teacher(run)
    partition = ensure_partition(run, teacher)
    for part in students or []:
        if not 0 <= part < partition.num_parts:
            raise RunError(f"there is no student {part}; students are 0 to {partition.num_parts - 1} (--students).")
    check_part_pairs(partition, run)
    if run.recipe.dm.regression.weight > 0:
        ensure_pairs(run, teacher, output)
    jobs = student_jobs(run, partition)
    chosen = [job for job in jobs if students is None or job.part in students]
    with run.timed("distill"):
        train(run, teacher, chosen, output)
    missing = [job.part for job in jobs if not is_done(job)]
    if not missing:
        assemble_cohort(run, partition, jobs, run.cohort, run.recipe.name)
    return {
        "run": str(run.folder),
        "cohort": None if missing else str(run.cohort),
        "missing_students": missing,
        "seconds": {job.name: read_status(job.folder).seconds for job in chosen},
    }
