"""`msd partition`, `msd pairs`, `msd distill`: plan a run, do the jobs that are asked for, assemble what is complete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from msd.cohort.manifest import Manifest, assemble
from msd.commands.console import Output
from msd.commands.tables import describe
from msd.commands.targets import check_results
from msd.conditions.partition import Partition
from msd.errors import RecipeError, RunError
from msd.files import write_json
from msd.fleet.inputs import Inputs, read_inputs
from msd.fleet.jobs import Job, is_done, read_result, read_status, result_folder, student_folder
from msd.fleet.local import num_fitting, run_jobs
from msd.fleet.plan import Plan, Row, plan
from msd.fleet.stored import StoredPlan
from msd.networks.facts import WEIGHTS
from msd.recipe import PRETRAIN
from msd.run import Run, differences
from msd.training.engine import Engine


def prepare(run: Run, output: Output) -> tuple[Plan, Inputs]:
    """The run's plan, once its teacher is there: one of its own is trained now. Nothing else is written before all that the
    recipe asks for is known to be possible."""
    Engine.on(run.recipe.device)
    if run.recipe.teacher.source == PRETRAIN:
        from msd.commands.pretrain import own_teacher  # only here: distilling never touches real images

        own_teacher(run, output)
    inputs = read_inputs(run.resolved)
    planned = plan(run.resolved, inputs)
    check_results(run)
    return planned, inputs


def begin(run: Run, planned: Plan, inputs: Inputs, output: Output) -> None:
    """Write down what the run is about, and say which finished work an input has changed under."""
    run.begin()
    partition = planned.main.partition
    partition.save(run.partition)
    write_json(run.partition_report, partition.report(inputs.teacher.embeddings(), inputs.teacher.classes))
    StoredPlan.of(planned).save(run.plan)
    for sentence in changes(run, planned):
        output.say(sentence)


def changes(run: Run, planned: Plan) -> list[str]:
    """A sentence for each job that stands under the same name with other inputs, and so is made again."""
    sentences = []
    for job in planned.jobs:
        if (run.jobs / job.key).exists():
            continue
        for folder in sorted(run.jobs.glob(f"{job.name}-????????")):
            old = Job.find(folder)
            if old is None:
                continue
            changed = differences(old.task.model_dump(mode="json"), job.task.model_dump(mode="json"))
            names = dict.fromkeys(name.partition(".")[0] for name in changed)
            sentences.append(
                f"{job.name} is made again: its {' and '.join(names)} changed since {folder} was made, which stays as it is."
            )
            break
    return sentences


def partition_report(run: Run, inputs: Inputs) -> dict[str, Any]:
    return Partition.load(run.partition).report(inputs.teacher.embeddings(), inputs.teacher.classes)


def all_done(run: Run, jobs: Sequence[Job]) -> bool:
    return all(is_done(job, run.jobs / job.key) for job in jobs)


def train(run: Run, jobs: Sequence[Job], inputs: Inputs, output: Output, work: str) -> None:
    """Do jobs in a live table, their time booked as `work` unless all are done. Raises StudentFailed or Interrupted."""
    weights = (inputs.teacher.folder / WEIGHTS).stat().st_size
    fitting = run.recipe.fleet.max_parallel or num_fitting(weights, run.recipe.fleet.threads, run.recipe.device)
    booked = nullcontext() if all_done(run, jobs) else run.timed(work)
    with booked, output.live_jobs({job.name: describe(job, inputs.teacher.classes) for job in jobs}) as on_change:
        run_jobs(jobs, run.jobs, fitting, on_change)


def students_of(run: Run, row: Row) -> list[Path]:
    return [student_folder(run.jobs / key) for key in row.jobs]


def row_folder(run: Run, row: Row) -> Path:
    return run.cohort if row.is_main else run.row(row.name)


def assemble_row(run: Run, row: Row, inputs: Inputs) -> Manifest:
    """The row's cohort, from its finished students, its classes called as the teacher calls them. Raises WeightsError."""
    name = run.recipe.name if row.is_main else row.name
    recipe = row.recipe.model_dump(mode="json")
    students, classes = students_of(run, row), inputs.teacher.classes
    return assemble(row_folder(run, row), name, row.partition, students, recipe=recipe, classes=classes)


def make_pairs(run: Run, output: Output) -> dict[str, Any]:
    """Make the pairs that the run's own students need, or mend them; returns what was found and done, the seconds that it
    has taken in all, and how many a second the last process made.

    Raises RecipeError when they need none.
    """
    planned, inputs = prepare(run, output)
    key = planned.by_key[planned.main.jobs[0]].needs.get("pairs")
    if key is None:
        raise RecipeError(f"recipe {run.recipe.name} uses no pairs; set dm.regression.weight above 0.")
    begin(run, planned, inputs, output)
    was_done = is_done(planned.by_key[key], run.jobs / key)
    train(run, planned.closure([key]), inputs, output, "pairs")
    facts = read_result(run.jobs / key) or {}
    report = {name: facts[name] for name in ("num_pairs", "kept", "made", "damaged")}
    status = read_status(run.jobs / key)
    report |= {"seconds": status.seconds, "pairs_per_second": status.images_per_second}
    if was_done:
        report |= {"kept": sorted(report["kept"] + report["made"]), "made": [], "damaged": []}
    if report["damaged"]:
        output.say(f"damaged or missing, made again: {', '.join(report['damaged'])}")
    return {"folder": str(result_folder(run.jobs / key)), **report}


def distill(run: Run, output: Output, students: Sequence[int] | None = None) -> dict[str, Any]:
    """Prepare, train the chosen students (None: all), assemble once all parts are done; returns a summary.

    Raises RunError for a student that the partition does not have.
    """
    planned, inputs = prepare(run, output)
    row = planned.main
    for part in students or []:
        if not 0 <= part < row.partition.num_parts:
            raise RunError(f"there is no student {part}; students are 0 to {row.partition.num_parts - 1} (--students).")
    begin(run, planned, inputs, output)
    chosen = [row.jobs[part] for part in (range(row.partition.num_parts) if students is None else students)]
    train(run, planned.closure(chosen), inputs, output, "training")
    missing = [part for part, key in enumerate(row.jobs) if not is_done(planned.by_key[key], run.jobs / key)]
    if not missing:
        assemble_row(run, row, inputs)
    return {
        "run": str(run.folder),
        "cohort": None if missing else str(run.cohort),
        "missing_students": missing,
        "seconds": {planned.by_key[key].name: read_status(run.jobs / key).seconds for key in chosen},
    }
