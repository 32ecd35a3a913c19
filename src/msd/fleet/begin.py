"""What a student begins as: its teacher, another student, slices of either, or random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msd.diffusion.denoiser import Denoiser
from msd.fleet.jobs import BUNDLE, START, Job, TrainTask, check_content, read_result, stage_folder
from msd.fleet.starts import read_start
from msd.networks.adapter import adapter_of
from msd.networks.folder import load_denoiser
from msd.recipe import RANDOM, STUDENT, TEACHER, section_of
from msd.training.bundle import Bundle


def begin(job: Job, task: TrainTask, folder: Path, teacher: Denoiser) -> tuple[Denoiser, Bundle, list[str]]:
    """The student's network as the first stage of `task` finds it, what was handed on with it, and from whom it descends.

    `folder` is the job's, beside those that it needs. Raises WeightsError for a start that is gone, or another one by now.
    """
    start, bundle, lineage = teacher, Bundle(), [TEACHER]
    place = folder.parent / job.needs[START] if START in job.needs else Path(job.start) if job.start else None
    if place is not None:
        found = read_start(place)
        content = (read_result(place) or {}).get("task", "") if START in job.needs else found.hash
        check_content("start", str(place), content, task.start)
        start = load_denoiser(found.student, next(teacher.parameters()).device)
        lineage = [*found.facts.get("lineage", (TEACHER,)), found.hash]
        bundle = Bundle.load(found.bundle) if found.bundle else bundle
    if task.weights == RANDOM or task.reduce:
        from msd.networks.inherit import fresh, inherit
        from msd.networks.shrink import smaller_config

        # What was handed on belongs to the whole network.
        bundle, network = Bundle(), adapter_of(start)
        config = network.config()
        config = smaller_config(config, task.reduce, network.kind).config if task.reduce else config
        start = fresh(start, config, task.seed) if task.weights == RANDOM else inherit(start, config)
    start = start.copy()
    start.spec = replace(start.spec, sigma_init=task.sigma_init)
    return start, bundle, lineage


def is_whole_teacher(task: TrainTask) -> bool:
    """Whether distillation itself begins with a copy of the teacher, so that nothing need be asked of the start."""
    prepared = any(section_of(stage.name).prepares for stage in task.stages)
    return task.start is None and task.weights != RANDOM and not task.reduce and not prepared


def prepared(job: Job, task: TrainTask, folder: Path, teacher: Denoiser) -> Denoiser:
    """The student as the first stage of `task` that distils finds it: raw, after those that only prepare a start.

    Rebuilt once the training in `folder` is over. Raises WeightsError where what it is rebuilt from is gone or changed.
    """
    start, bundle, _ = begin(job, task, folder, teacher)
    for index, stage in enumerate(task.stages):
        if section_of(stage.name).prepares:
            bundle = Bundle.load(stage_folder(folder, index, stage.name) / BUNDLE)
    return bundle.restore(STUDENT, start).eval().requires_grad_(False)
