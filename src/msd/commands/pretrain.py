"""`msd pretrain`: train a recipe's teacher (or the feature network of its metric), measure it, save it with its recipe."""

from __future__ import annotations

from typing import Any

from msd.commands.console import Output
from msd.conditions.partition import Partition
from msd.data.images import load_images
from msd.diffusion.solvers import Solver
from msd.errors import Interrupted
from msd.evaluation.bench import Bench
from msd.evaluation.features import load_features, save_features, train_features
from msd.evaluation.samplers import teacher_sampler
from msd.files import replacing_folder
from msd.networks.facts import read_facts
from msd.networks.folder import load_denoiser, save_denoiser
from msd.run import Run
from msd.stages.pretrain import Pretraining
from msd.training.checkpoint import Checkpoints
from msd.training.engine import Engine
from msd.training.interrupts import stop_requests
from msd.training.loop import run_stage
from msd.training.records import RecordFile

CHECKPOINT_EVERY = 250


def pretrain_teacher(run: Run, output: Output) -> dict[str, Any]:
    """Train or go on training, then sample by Heun-18 and record the quality beside the weights; returns the facts."""
    recipe = run.recipe
    if (run.teacher / "denoiser.json").exists():
        load_denoiser(run.teacher)  # verifies the checksum
        return read_facts(run.teacher)
    engine = Engine.on(recipe.device)
    images = load_images(recipe.data.name)
    stage = Pretraining(recipe, images, engine)
    generator = engine.generator(recipe.seed)
    checkpoints = Checkpoints(run.folder / "pretrain", {"stage": stage.name, "recipe": recipe.fingerprint()})
    records = RecordFile(run.folder / "pretrain-records.jsonl")
    start = checkpoints.restore(stage.roles, generator)
    records.cut(start)

    with (
        run.timed("pretrain"),
        stop_requests() as stop,
        output.progress("training the teacher", stage.num_steps) as advance,
    ):
        advance(start)

        def after_step(step: int, record: dict[str, float]) -> None:
            advance(1)
            if stop or step % CHECKPOINT_EVERY == 0:
                records.flush()
                checkpoints.save(step, stage.roles, generator)
            if stop:
                raise Interrupted(f"stopped after {step} updates; the same command again goes on from there.")

        run_stage(stage, generator, start=start, callbacks=(records, after_step))
    records.flush()

    teacher = stage.roles["teacher"].result().eval()
    bench = Bench(images, Partition.whole(images.prior), recipe.evaluation)
    solver = Solver("heun", 18, teacher.spec.sigma_min, teacher.spec.sigma_max)
    with output.progress("measuring the teacher", recipe.evaluation.num_samples) as advance:
        quality = bench.row(teacher_sampler("teacher", teacher, solver), advance)
    facts = {
        "role": "teacher",
        "data": images.name,
        "data_licence": images.licence,
        "prior": list(images.prior),
        "recipe": {
            "seed": recipe.seed,
            **{key: getattr(recipe, key).model_dump(mode="json") for key in ("network", "pretrain")},
        },
        "quality": {"sampler": f"teacher-{solver.name}", **quality, "floor": bench.floor()},
    }
    with replacing_folder(run.teacher) as folder:
        save_denoiser(teacher, folder, **facts)
    checkpoints.clear()
    return read_facts(run.teacher)


def pretrain_features(run: Run, output: Output) -> dict[str, Any]:
    """Train the classifier behind the recipe's Frechet distance; returns its facts."""
    images = load_images(run.recipe.data.name)
    folder = run.folder / "features"
    if folder.exists():
        return load_features(images.name, folder)[1]
    num_epochs = 60
    with output.progress("training the feature network", num_epochs) as advance:
        network, recipe = train_features(images, run.recipe.seed, num_epochs, on_epoch=lambda epoch: advance(1))
    with replacing_folder(folder) as temporary:
        save_features(network, temporary, recipe)
    return load_features(images.name, folder)[1]
