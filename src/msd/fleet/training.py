"""The work of a training job: fold its stages, each from the bundle of the one before, and leave the last one's result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd.conditions.partition import Partition
from msd.data.pairs import load_pairs
from msd.errors import DataError
from msd.files import replacing, replacing_folder
from msd.fleet.jobs import BUNDLE, CHECKPOINTS, Job, TrainTask, check_content, result_folder, seal_result
from msd.fleet.progress import Progress, StopRequested
from msd.fleet.starts import read_start
from msd.networks.folder import load_denoiser, save_denoiser
from msd.recipe import STUDENT, TEACHER, NetworkSection, section_of
from msd.stages.materials import Materials
from msd.stages.table import STAGES
from msd.teachers.folder import load_teacher
from msd.training.bundle import Bundle
from msd.training.checkpoint import Checkpoints, refuse_non_finite
from msd.training.engine import Engine
from msd.training.loop import steps
from msd.training.records import RecordFile

if TYPE_CHECKING:
    from msd.training.loop import Stage

LISTEN_EVERY = 5
"""Steps between two agreements to stop, where several processes share a batch."""


def train(job: Job, task: TrainTask, folder: Path, engine: Engine, progress: Progress) -> None:
    """Train, or go on training, until the result is there. Raises MsdError, or StopRequested once state is saved."""
    materials, facts = _gather(job, task, folder, engine)
    done, history = 0, []
    for index, planned in enumerate(task.stages):
        settings: Any = section_of(planned.name).model_validate(planned.settings)
        place = folder / "stages" / f"{index}-{planned.name}"
        history.append({"stage": planned.name, "num_updates": settings.num_updates, "seed": task.seed})
        if (place / BUNDLE).is_file():
            materials = replace(materials, bundle=Bundle.load(place / BUNDLE))
        else:
            stage = STAGES[planned.name](settings, materials)
            clear = _run(stage, place, job, task, engine, progress, done)
            bundle = Bundle({name: role.weights() for name, role in stage.roles.items()})
            if engine.is_main and index == len(task.stages) - 1:
                with replacing_folder(result_folder(folder)) as result:
                    (result / stage.delivers).mkdir()
                    save_denoiser(stage.roles[stage.delivers].result(), result / stage.delivers, **facts, stages=history)
                    bundle.save(result / BUNDLE)
                    seal_result(result, task.hash)
            elif engine.is_main:
                with replacing(place / BUNDLE) as temporary:
                    bundle.save(temporary)
            engine.barrier()
            clear()
            materials = replace(materials, bundle=bundle)
        done += settings.num_updates


def _run(
    stage: Stage, place: Path, job: Job, task: TrainTask, engine: Engine, progress: Progress, base: int
) -> Callable[[], None]:
    """Restore, cut, run, flush, save, for every stage. Returns what removes its checkpoints once its result is kept."""
    checkpoints = Checkpoints(place / CHECKPOINTS, {"task": task.hash, "stage": place.name})
    records = RecordFile(place / "records.jsonl")
    start = checkpoints.restore(stage)
    engine.barrier()
    if engine.is_main:
        records.cut(start)
    progress.begin(base + start, stage.name)
    for step, record in steps(stage, engine, task.seed, start=start):
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
    return checkpoints.clear if engine.is_main else lambda: None


def _gather(job: Job, task: TrainTask, folder: Path, engine: Engine) -> tuple[Materials, dict[str, Any]]:
    """What the stages are made from, and the facts that are saved beside the result."""
    if task.teacher is None:
        from msd.data.images import load_images  # only here: distilling never touches real images

        if (data := job.data) is None:
            raise DataError(f"{folder} trains a teacher and names no images; give the command that made it again.")
        images = load_images(data)
        check_content("data", data.source, images.hash, task.data)
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

    teacher = load_teacher(job.teacher or "", engine.device)
    check_content("teacher", job.teacher, teacher.hash, task.teacher)
    partition = Partition.from_json(task.partition, source=str(folder))
    part, bundle, lineage, start = task.part or 0, Bundle(), ["teacher"], teacher.denoiser
    if job.start is not None:
        found = read_start(Path(job.start))
        check_content("start", job.start, found.hash, task.start)
        start, lineage = load_denoiser(found.student, engine.device), [*found.facts.get("lineage", ("teacher",)), found.hash]
        bundle = Bundle.load(found.bundle) if found.bundle else bundle
    start = start.copy()
    start.spec = replace(start.spec, sigma_init=task.sigma_init)
    materials = Materials(
        engine,
        task.seed,
        bundle=bundle,
        teacher=teacher.denoiser,
        start=start,
        conditions=teacher.conditions,
        partition=partition,
        part=part,
        pairs=load_pairs(result_folder(folder.parent / job.needs["pairs"])) if "pairs" in job.needs else None,
    )
    facts = {
        "role": STUDENT,
        "task": task.hash,
        "partition_hash": partition.hash,
        "part": part,
        "conditions": list(partition.parts[part]),
        "teacher": {"source": job.teacher, "hash": teacher.hash, "licence": teacher.licence},
        "lineage": lineage,
    }
    return materials, facts
