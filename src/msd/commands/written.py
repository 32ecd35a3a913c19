"""The recipe that `msd init` writes: every section with the keys that matter, and beside each why it has its value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msd.commands.budget import (
    DM_BATCH,
    HEAD_START,
    OWN_SHARE,
    REGRESSION_BATCH,
    Choice,
    Costs,
    Facts,
    duration,
    needs_replacement,
    smallest_share,
)
from msd.commands.data import Look, counted, remarks
from msd.commands.recipe_text import Line, Part, recipe_text
from msd.recipe import CLASSIFIER, DATA, PRETRAIN, TEACHER

LARGE = 500_000
"""Parameters from which learning rates are lower."""
NAMED = 30
"""Classes and damaged files that the file's header names."""
USED = 0.8
"""Of a budget: where less is needed, the file says why."""
SIGMA_INIT = 2.5
NOISY_FROM = 32
"""Sizes above which sampling starts at more noise."""


@dataclass(frozen=True)
class Plan:
    """All that a recipe is written from: names, the source as the file has it, the budget, what was found and chosen."""

    name: str
    data_name: str
    source: str
    seconds: float
    found: Look
    facts: Facts
    costs: Costs
    choice: Choice


def recipe_of(plan: Plan) -> str:
    """The text of the file."""
    parts = [
        *_top(plan),
        _data(plan),
        _network(plan),
        Part("teacher", [Line("source", PRETRAIN, "the run trains its own, from these images")]),
        _pretrain(plan),
        _partition(plan),
        _student(plan),
        _pairs(plan),
        _dm(plan),
        _rows(plan),
        _evaluation(plan),
        _fleet(plan),
    ]
    return recipe_text(_header(plan), parts)


def _header(plan: Plan) -> Iterator[str]:
    facts, choice = plan.found.findings, plan.choice
    yield f"Written by `msd init`. Next: msd demo {plan.name}.yaml --out runs/{plan.name}"
    yield "Change what you like: `msd recipes FILE` explains every key, `msd plan FILE` shows what will be done."
    yield ""
    yield f"Found in {facts.source}: {facts.num_images:,} images ({facts.layout})."
    if facts.splits:
        yield f"Parts of the source: {counted(facts.splits)}" + ("." if plan.found.data.split else "; all are used.")
    yield f"Classes: {counted(facts.classes, NAMED)}."
    yield f"Sizes (width x height): {counted(facts.sizes)}. Kinds: {counted(facts.kinds)}."
    yield from remarks(facts)
    for entry in facts.damaged[:NAMED]:
        yield f"Damaged: {entry}"
    if len(facts.damaged) > NAMED:
        yield f"and {len(facts.damaged) - NAMED:,} more (`msd data check SOURCE --json` names all)."
    yield ""
    yield f"Measured here ({plan.costs.num_processes} processes at a time, one thread each), in seconds:"
    for cost in plan.costs.networks:
        mark = " <- chosen" if cost is choice.cost else ""
        widths = "-".join(map(str, cost.network.block_out_channels))
        yield (
            f"  {widths}, {cost.num_parameters:,} parameters: teacher's update {cost.teacher_update:.3g}, student's "
            f"{cost.regression_update:.3g} (regression) and {cost.full_update:.3g} (full){mark}"
        )
    expected = ", ".join(f"{name} {duration(taken)}" for name, taken in choice.seconds.items())
    yield f"Expected, of a budget of {duration(plan.seconds)}: {expected}; all {duration(choice.total)}."
    if choice.total < USED * plan.seconds:
        yield (
            "That is less than the budget: more updates or samples of a network of this size were never tried, and a larger "
            "one would learn so few images by heart, or was not timed."
        )
    if plan.costs.busy >= 1.3:
        yield f"Other programs were busy meanwhile; while they are, it takes about {plan.costs.busy:.1f} times as long."
    yield 'Where a comment says "not tuned", nobody looked for a better value for images like these.'


def _top(plan: Plan) -> list[Part]:
    facts = plan.found.findings
    return [
        Part(
            "",
            [
                Line("name", plan.name),
                Line("summary", f"{len(facts.classes)} classes at {plan.facts.size}x{plan.facts.size}, "
                     f"{plan.choice.num_parts} one-step students"),
                Line("cost", f"about {duration(plan.choice.total)} where it was planned"),
                Line("seed", 0, "of everything random; others show how far chance goes"),
                Line("device", "cpu", "cuda, if there is a GPU: then a larger network pays"),
            ],
        )
    ]  # fmt: skip


def _data(plan: Plan) -> Part:
    data, facts = plan.found.data, plan.found.findings
    if data.is_packaged:
        return Part("data", [Line("source", plan.source), Line("prior", data.prior)])
    uniform = data.prior == "uniform"
    lines = [
        Line("source", plan.source, "a relative path starts at this file's folder"),
        Line("split", data.split, "the part of the source that is used (null: all)"),
        Line("name", data.name or plan.data_name, "what metrics call the images"),
        *([Line("classes", list(data.classes), "names in the order of the numbers")] if data.classes else []),
        Line("size", data.size, f"came as {counted(facts.sizes, 3)}; another --size needs another plan"),
        Line("channels", data.channels, f"1 grey, 3 colour; null: by what is found, here {facts.channels}"),
        Line("fit", data.fit, "crop cuts longer sides off, pad adds borders, stretch changes the shape"),
        Line("background", data.background, "behind transparent pixels and around padded images"),
        Line("skip_damaged", data.skip_damaged, "true: go on without files that cannot be read"),
        Line(
            "prior", data.prior, "all classes alike" if uniform else "each class as often as it occurs; uniform: all alike"
        ),
        Line("licence", data.licence, "of the images; it is written beside whatever is made from them"),
    ]
    return Part("data", lines)


def _network(plan: Plan) -> Part:
    network = plan.choice.cost.network
    folded = "none" if network.fold == 1 else f"{network.fold}x{network.fold} pixels are one place"
    lines = [
        Line("block_out_channels", list(network.block_out_channels), "the largest that gets enough updates in the budget"),
        Line("layers_per_block", network.layers_per_block, "as the digits recipe"),
        Line("norm_num_groups", network.norm_num_groups, "must divide every width"),
        Line("attention", network.attention, "in the middle block, where there are three levels or more; not tuned"),
        Line("fold", network.fold, f"{folded}: folding 2x2 halves the time of an update at 28x28 and 32x32"),
    ]
    about = f"The teacher's U-Net, and so each student's: {plan.choice.cost.num_parameters:,} parameters."
    return Part("network", lines, about)


def _pretrain(plan: Plan) -> Part:
    choice, is_large = plan.choice, plan.choice.cost.num_parameters >= LARGE
    epochs = choice.num_updates * choice.teacher_batch / plan.facts.num_images
    lines = [
        Line("num_updates", choice.num_updates, f"each image is seen about {epochs:,.0f} times"),
        Line("batch_size", choice.teacher_batch),
        Line("learning_rate", 1.2e-3 if is_large else 2e-3, "lower for larger networks; not tuned"),
        Line("warmup_updates", max(1, min(200, choice.num_updates // 20))),
        Line("ema_decay", 0.999 if choice.num_updates >= 8000 else 0.998 if choice.num_updates >= 2000 else 0.99,
             "of the average that is the teacher; nearer 1 for longer trainings"),
    ]  # fmt: skip
    return Part("pretrain", lines, "Training the teacher with EDM's loss.")


def _partition(plan: Plan) -> Part:
    facts, choice = plan.facts, plan.choice
    why = f"students; the rarest part is asked for in {smallest_share(facts):.0%} of requests"
    lines = [
        Line("method", "contiguous", "neighbouring classes together; balanced-kmeans: classes alike to the teacher"),
        Line("num_parts", choice.num_parts, why),
    ]
    return Part("partition", lines)


def _student(plan: Plan) -> Part:
    lines = [
        Line("start", TEACHER, "a copy of it"),
        Line("sigma_init", SIGMA_INIT, "input noise level: EDM's law hardly ever trains a teacher above it, at any size"),
    ]
    return Part("student", lines)


def _sigma_max(size: int) -> float:
    """20 is measured at 8x8; coarse shapes of larger images drown only in more noise, as their places average it out."""
    return 20.0 if size <= NOISY_FROM else 40.0


def _pairs(plan: Plan) -> Part:
    choice, size = plan.choice, plan.facts.size
    solver = [
        Line("method", "heun"),
        Line("num_steps", choice.solver_steps, "8 are enough at 8x8, 12 at 32x32 (measured); more only if these look poor"),
        Line("sigma_min", 0.02),
        Line("sigma_max", _sigma_max(size), "few steps are best spent where images are told from noise"),
    ]
    lines = [
        Line("num_pairs", choice.num_pairs, "more pay where regression dwells on a part's own ones"),
        Line("shard_size", min(1000, max(100, choice.num_pairs // 4)), "pairs a file"),
        Part("solver", solver),
    ]
    return Part("pairs", lines, "The teacher's answers to random noise, for regression.")


def _regression_weight(size: int) -> Line:
    """Measured at 8x8 and at 32x32 (docs/results.md): detail wants the matching gradient to say more."""
    return Line("weight", 4.0, "as the digits recipe") if size <= 16 else Line("weight", 1.0, "as the fashion recipe")


def _dm(plan: Plan) -> Part:
    choice, is_large = plan.choice, plan.choice.cost.num_parameters >= LARGE
    replaced = needs_replacement(choice, plan.facts)
    regression = [
        _regression_weight(plan.facts.size),
        Line("batch_size", REGRESSION_BATCH, "smaller ones favour specialists"),
        Line("head_start", HEAD_START, "share of updates by regression alone, which cost a quarter"),
        Line("own_share", OWN_SHARE, "share of a batch from the part's own pairs; 0 is the paper's choice"),
        Line("with_replacement", replaced, "a part has few pairs of its own" if replaced else "no pair twice in a batch"),
    ]
    lines = [
        Line("num_updates", choice.dm_updates, "of each student; what the budget leaves"),
        Line("batch_size", DM_BATCH),
        Line("learning_rate", 8e-4 if is_large else 1e-3, "lower for larger networks; not tuned"),
        Line("critic_learning_rate", 1.5e-3, "the critic must keep up"),
        Line("warmup_updates", max(1, min(25, choice.dm_updates // 20))),
        Line("ema_decay", 0.995 if choice.dm_updates >= 400 else 0.98, "of the average that is delivered"),
        Line("sigma_high", _sigma_max(plan.facts.size), "highest noise level of the matching gradient"),
        Part("regression", regression),
    ]
    return Part("dm", lines, "Distribution matching makes the one-step students.")


def _rows(plan: Plan) -> Part:
    single = Line("single", {"partition.num_parts": 1, "note": "one student"})
    total = Line("single-equal-total", {"partition.num_parts": 1, "equal": "total-updates", "note": "one student"})
    if plan.choice.has_equal_total:
        return Part(
            "rows", [single, total], "Compared with: one student with as many updates as each, and with those of all."
        )
    about = (
        "Compared with one student of as many updates as each. The row of one student with the updates of all is left out: "
        "it takes as long as the whole cohort, which this budget does not pay. To have it, add:\n"
    )
    wanted = "  single-equal-total: {partition.num_parts: 1, equal: total-updates, note: one student}"
    return Part("rows", [single], f"{about} {wanted}")


def _evaluation(plan: Plan) -> Part:
    choice = plan.choice
    lines = [
        Line("features", CLASSIFIER, "trained on these images first; lite0: ImageNet's, with the extra `features`"),
        Line("reference", DATA, "distances are to these images"),
        Line("num_samples", choice.num_samples, "images of each row; compare distances at equal numbers only"),
        Line("latency_batches", list(choice.latency_batches), "batch sizes at which requests are timed"),
        Line("latency_repeats", choice.latency_repeats),
    ]
    return Part("evaluation", lines)


def _fleet(plan: Plan) -> Part:
    every = max(10, min(500, plan.choice.dm_updates // 10))
    lines = [
        Line("max_parallel", None, f"students at a time (null: as fit; {plan.costs.num_processes} where it was planned)"),
        Line("threads", 1, "of each; small networks gain more from processes"),
        Line("checkpoint_every", every, "updates that a crash can cost at most"),
    ]
    return Part("fleet", lines)
