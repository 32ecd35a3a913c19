"""`msd pretrain`: train a recipe's teacher (or the feature network of its metric), measure it, save it with its recipe."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from msd.commands.console import Output
from msd.commands.targets import check_results
from msd.conditions.partition import Partition
from msd.data.images import ImageSet, load_images
from msd.errors import DataError, WeightsError, warn
from msd.evaluation.bench import Bench
from msd.evaluation.classifier import train_classifier
from msd.evaluation.features import FILES as FEATURE_FILES
from msd.evaluation.features import load_classifier, save_classifier
from msd.evaluation.features import read_facts as read_feature_facts
from msd.evaluation.samplers import named_solver, teacher_sampler
from msd.files import replacing_folder, write_json
from msd.fleet.foresight import foreseen_plan
from msd.fleet.jobs import Job, TrainTask, result_folder
from msd.fleet.local import run_jobs
from msd.fleet.plan import pretrain_job
from msd.networks.facts import FACTS, FILES, read_facts
from msd.networks.folder import load_denoiser
from msd.reading import clause
from msd.recipe import TEACHER
from msd.run import Run
from msd.training.engine import Engine


def own_teacher(run: Run, output: Output) -> None:
    """The teacher that the run's recipe asks it to train, trained unless it is there.

    Raises what planning with it would raise, as far as that can be foreseen: now, not hours later.
    """
    images = load_images(run.recipe.data)
    foreseen_plan(run.recipe, images)
    train_teacher(run, images, output)


def train_teacher(run: Run, images: ImageSet, output: Output) -> dict[str, Any]:
    """Train the run's teacher, or go on training it, unless it is there; returns its facts.

    Raises DataError when the run has a teacher of other images.
    """
    job = pretrain_job(run.recipe, images.hash)
    if (run.teacher / FACTS).exists():
        try:
            if read_facts(run.teacher).get("task") == job.task.hash:
                load_denoiser(run.teacher)  # verifies the checksum
                return _named(run, images)
        except WeightsError as error:
            warn(f"{clause(error)}; the teacher is put together again from its training's result.")
    _refuse_other_images(run, job)
    check_results(run)
    run.begin()
    with run.timed("pretrain"), output.live_jobs({job.name: images.name}) as on_change:
        run_jobs([job], run.jobs, 1, on_change)
    sections = {key: getattr(run.recipe, key).model_dump(mode="json") for key in ("network", "pretrain")}
    with replacing_folder(run.teacher, ours=FILES) as folder:
        shutil.copytree(result_folder(run.jobs / job.key) / TEACHER, folder, dirs_exist_ok=True)
        write_json(folder / FACTS, read_facts(folder) | {"recipe": {"seed": run.recipe.seed, **sections}})
    return read_facts(run.teacher)


def _named(run: Run, images: ImageSet) -> dict[str, Any]:
    """The facts of the run's teacher, its classes called as the images call them now: no name is part of a training."""
    facts = read_facts(run.teacher)
    if facts.get("classes") != list(images.classes):
        facts["classes"] = list(images.classes)
        write_json(run.teacher / FACTS, facts)
    return facts


def _refuse_other_images(run: Run, job: Job) -> None:
    """Raises DataError when the run's teacher was trained, or begun, on other images by the same recipe."""
    for folder in sorted(run.jobs.glob(f"{TEACHER}-????????")):
        old = Job.find(folder)
        if old is None or not isinstance(old.task, TrainTask) or not isinstance(job.task, TrainTask):
            continue
        if old.task != job.task and old.task.model_copy(update={"data": job.task.data}) == job.task:
            raise DataError(
                f"{run.recipe.data.source} changed since {run.folder} began (its images have another checksum); put the old "
                "images back, or choose another --out."
            )


def pretrain_teacher(run: Run, output: Output) -> dict[str, Any]:
    """Train the run's teacher, sample it by the first solver of `evaluation.teacher` and record the quality beside the
    weights; returns the facts."""
    recipe = run.recipe
    device = Engine.on(recipe.device).device
    images = load_images(recipe.data)
    if recipe.evaluation.needs_classifier:
        pretrain_features(run, output)
    whole = Partition.whole(images.prior)
    bench = Bench(images, whole, recipe.evaluation, run_folder=run.folder, device=device)  # or fail before training
    facts = train_teacher(run, images, output)
    if "quality" in facts:
        return facts
    teacher = load_denoiser(run.teacher)
    bench = replace(bench, noise_shape=teacher.spec.noise_shape)
    sampler = teacher_sampler(teacher, named_solver(recipe.evaluation.teacher[0], teacher.spec))
    with output.progress("looking at the real images", bench.num_unseen) as advance:
        bench.look(advance)
    with output.progress("measuring the teacher", bench.work) as advance:
        quality = bench.row(sampler, advance)
    facts |= {"quality": {"sampler": sampler.name, **quality, "floor": bench.floor()}}
    write_json(run.teacher / FACTS, facts)
    return read_facts(run.teacher)


def pretrain_features(run: Run, output: Output) -> dict[str, Any]:
    """Train the classifier behind the recipe's Frechet distance on its images, unless it is there; returns its facts.

    One that is damaged, or of other images than the recipe's now, is trained again with a warning.
    """
    images, folder = load_images(run.recipe.data), run.features
    if (facts := _whole_features(folder, images.hash)) is not None:
        return facts
    check_results(run)
    run.begin()
    with run.timed("features"):
        bar = partial(output.progress, "training the feature network")
        network, recipe = train_classifier(images, run.recipe.seed, progress=bar)
        with replacing_folder(folder, ours=FEATURE_FILES) as temporary:
            save_classifier(network, temporary, recipe)
    return read_feature_facts(folder)


def _whole_features(folder: Path, images_sha256: str) -> dict[str, Any] | None:
    """The facts of the classifier in `folder`, if it is whole and learned from these images."""
    if not any((folder / name).exists() for name in FEATURE_FILES):
        return None
    try:
        load_classifier(folder)
        facts = read_feature_facts(folder)
    except WeightsError as error:
        warn(f"{clause(error)}; the feature network is trained again.")
        return None
    if facts.get("data_sha256") != images_sha256:
        warn(f"{folder} was trained on other images than the recipe's are now; the feature network is trained again.")
        return None
    return facts
