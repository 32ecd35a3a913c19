"""`msd eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msd.commands.options import Changes, CohortArgument, Out

if TYPE_CHECKING:
    from msd.commands.console import Output


def evaluate(*, cohort: CohortArgument, changes: Changes, out: Out = None, output: Output) -> None:
    """Measure a cohort beside its teacher: quality globally and per part, latency.

    Written beside the cohort, as COHORT-metrics.json, unless --out says otherwise.

    Example: msd eval runs/demo/cohort --set evaluation.num_samples=2000 --json
    """
    from msd.commands.targets import beside, check_file, is_metrics

    saved = out or beside(cohort, "-metrics.json")
    check_file(saved, is_metrics, "an evaluation's results")
    from msd.commands.console import show_metrics
    from msd.commands.evaluate import cohort_recipe, evaluate_cohort

    recipe = cohort_recipe(cohort, changes.overrides, changes.seed, changes.device)
    metrics = evaluate_cohort(cohort, recipe, saved, output)
    show_metrics(metrics, output)
    output.result(metrics, f"saved as {saved}")
