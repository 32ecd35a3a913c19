"""The work of a training job: fold its stages, each from the bundle of the one before, and leave the last one's result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd.conditions.partition import Partition
from msd.data.shards import open_pairs
from msd.errors import DataError, RunError, warn
from msd.files import has_sha256, replacing, replacing_folder, sha256_file, write_json
from msd.fleet.begin import begin
from msd.fleet.jobs import (
    BUNDLE,
    CHECKPOINTS,
    PAIRS,
    Job,
    TrainTask,
    check_content,
    result_folder,
    seal_result,
    stage_folder,
)
from msd.fleet.progress import Progress, StopRequested
from msd.networks.folder import save_denoiser
from msd.reading import Kind, Sha256, Stored, read_model, set_aside
from msd.recipe import STUDENT, TEACHER, DataSection, NetworkSection, section_of
from msd.run import AGAIN
from msd.stages.materials import Materials
from msd.stages.table import STAGES
from msd.teachers.folder import load_teacher
from msd.training.bundle import Bundle
from msd.training.checkpoint import Checkpoints, refuse_non_finite
from msd.training.checkpoint_files import remove_checkpoints
from msd.training.engine import Engine
from msd.training.loop import steps
from msd.training.passes import stage_flops
from msd.training.records import RecordFile

if TYPE_CHECKING:
    from msd.data.images import ImageSet
    from msd.training.loop import Stage

LISTEN_EVERY = 5
"""Steps between two agreements to stop, where several processes share a batch."""
HISTORY = "history.json"
"""What a stage that is done, with others to come, says of itself: it may have ended before its number of updates. It is
written last, with the checksum of what is handed on."""
_HISTORY_KIND = Kind("what a finished stage says of itself", AGAIN)


class _Finished(Stored):
    stage: str
    num_updates: int
    seed: int
    num_flops: int | None = None
    """Floating-point operations of its steps; None of one that ended before they were counted."""
    bundle: Sha256


def train(job: Job, task: TrainTask, folder: Path, engine: Engine, progress: Progress) -> None:
    """Train, or go on training, until the result is there. Raises MsdError, or StopRequested once state is saved."""
    engine = replace(engine, precision=task.precision)
    materials, facts = _gather(job, task, folder, engine)
    done, history = 0, []
    for index, planned in enumerate(task.stages):
        settings: Any = section_of(planned.name).model_validate(planned.settings)
        place = stage_folder(folder, index, planned.name)
        if finished := _finished(place):
            materials = replace(materials, bundle=Bundle.load(place / BUNDLE))
            history.append(finished.model_dump(exclude={"bundle"}))
            if engine.is_main:
                remove_checkpoints(place / CHECKPOINTS)  # of a process that was killed before it came to that
        else:
            stage = STAGES[planned.name](settings, materials)
            clear, num_steps = _run(stage, place, job, task, engine, progress, done)
            bundle = Bundle({name: role.weights() for name, role in stage.roles.items()})
            updates = stage.roles[stage.delivers].num_updates
            flops = stage_flops(stage, num_steps) if engine.is_main else None
            history.append({"stage": planned.name, "num_updates": updates, "seed": task.seed, "num_flops": flops})
            if engine.is_main and index == len(task.stages) - 1:
                with replacing_folder(result_folder(folder)) as result:
                    (result / stage.delivers).mkdir()
                    save_denoiser(stage.roles[stage.delivers].result(), result / stage.delivers, **facts, stages=history)
                    bundle.save(result / BUNDLE)
                    seal_result(result, task.hash)
            elif engine.is_main:
                with replacing(place / BUNDLE) as temporary:
                    bundle.save(temporary)
                write_json(place / HISTORY, history[-1] | {"bundle": sha256_file(place / BUNDLE)})
            engine.barrier()
            clear()
            materials = replace(materials, bundle=bundle)
        done += settings.num_steps


def _finished(place: Path) -> _Finished | None:
    """What the stage in `place` says of itself once it is done; None, and it is done again, where that is broken, or what it
    handed on."""
    if not os.path.lexists(place / HISTORY):
        return None
    try:
        finished = read_model(place / HISTORY, _Finished, _HISTORY_KIND)
    except RunError as error:
        set_aside(place / HISTORY, error)
        return None
    if not has_sha256(place / BUNDLE, finished.bundle):
        warn(f"{place / BUNDLE} is missing or damaged; stage {finished.stage} is trained again.")
        return None
    return finished


def _run(
    stage: Stage, place: Path, job: Job, task: TrainTask, engine: Engine, progress: Progress, base: int
) -> tuple[Callable[[], None], int]:
    """Restore, cut, run, flush, save, for every stage.

    Returns what removes its checkpoints once its result is kept, and how many steps it had, which may end it early.
    """
    checkpoints = Checkpoints(place / CHECKPOINTS, {"task": task.hash, "stage": place.name})
    records = RecordFile(place / "records.jsonl")
    start = checkpoints.restore(stage)
    engine.barrier()
    if engine.is_main:
        records.cut(start)
    progress.begin(base + start, stage.name, stage.batch_size)
    taken = start
    for step, record in steps(stage, engine, task.seed, start=start):
        taken = step
        last = step == stage.num_steps
        listening = engine.slice.num_ranks == 1 or step % LISTEN_EVERY == 0
        stopping = listening and engine.any_rank(bool(progress.stop)) and not last
        if engine.is_main:
            records.add(step, record)
            if not last and (stopping or step % job.resources.checkpoint_every == 0):
                records.flush()
                checkpoints.save(step, stage)
        progress(base + step, records.last)
        if stopping:
            engine.barrier()
            raise StopRequested
    refuse_non_finite(stage, stage.num_steps)
    if engine.is_main:
        records.flush()
    return (checkpoints.clear if engine.is_main else lambda: None), taken


def _gather(job: Job, task: TrainTask, folder: Path, engine: Engine) -> tuple[Materials, dict[str, Any]]:
    """What the stages are made from, and the facts that are saved beside the result."""
    if task.teacher is None:
        if job.data is None:
            raise DataError(f"{folder} trains a teacher and names no images; give the command that made it again.")
        images = _images(job.data, task)
        network = NetworkSection.model_validate(task.network)
        facts = {
            "role": TEACHER,
            "task": task.hash,
            "data": images.name,
            "data_licence": images.licence,
            "classes": list(images.classes),
            "prior": list(images.prior),
        }
        return Materials(engine, task.seed, images=images, network=network), facts

    teacher = load_teacher(job.teacher or "", engine.device, job.guidance)
    check_content("teacher", job.teacher, teacher.hash, task.teacher)
    partition, part = Partition.from_json(task.partition, source=str(folder)), task.part or 0
    start, bundle, lineage = begin(job, task, folder, teacher.denoiser)
    materials = Materials(
        engine,
        task.seed,
        bundle=bundle,
        teacher=teacher.denoiser,
        start=start,
        conditions=teacher.conditions,
        partition=partition,
        part=part,
        pairs=open_pairs(result_folder(folder.parent / job.needs[PAIRS])) if PAIRS in job.needs else None,
        images=_images(job.data, task) if job.data else None,
        critic=task.critic,
    )
    facts = {
        "role": STUDENT,
        "task": task.hash,
        "partition_hash": partition.hash,
        "part": part,
        "conditions": list(partition.parts[part]),
        "teacher": {
            "source": job.teacher,
            "hash": teacher.hash,
            "licence": teacher.licence,
            "origin": teacher.facts.origin.model_dump() if teacher.facts.origin else None,
        },
        "lineage": lineage,
    }
    return materials, facts


def _images(data: DataSection, task: TrainTask) -> ImageSet:
    from msd.data.images import load_images  # only here: most students are made without any real image

    images = load_images(data)
    check_content("data", data.source, images.hash, task.data)
    return images
