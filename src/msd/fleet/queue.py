"""In which order the jobs of a plan are done: the longest path first. No torch here."""

from __future__ import annotations

from collections.abc import Iterable

from msd.diffusion.evaluations import NUM_EVALUATIONS
from msd.errors import RunError
from msd.fleet.jobs import Job, PairsTask


def cost(job: Job) -> int:
    """A rough measure of a job's work, for the order of the queue: images through a network."""
    task = job.task
    if isinstance(task, PairsTask):
        solver = task.solver
        return task.num_pairs * (NUM_EVALUATIONS[solver["method"]](solver["num_steps"]) if solver else 1)
    return sum(stage.settings["num_updates"] * stage.settings["batch_size"] for stage in task.stages)


def queue(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Jobs by the length of the longest path that starts with them, longest first; refuses a cycle."""
    by_key = {job.key: job for job in jobs}
    waited_for: dict[str, list[str]] = {key: [] for key in by_key}
    for job in by_key.values():
        for need in job.needs.values():
            waited_for[need].append(job.key)
    lengths: dict[str, int] = {}

    def length(key: str, above: tuple[str, ...]) -> int:
        if key in above:
            raise RunError(f"jobs wait for each other: {' -> '.join([*above[above.index(key) :], key])}; break the circle.")
        if key not in lengths:
            after = [length(other, (*above, key)) for other in waited_for[key]]
            lengths[key] = cost(by_key[key]) + max(after, default=0)
        return lengths[key]

    for key in by_key:
        length(key, ())
    return tuple(sorted(by_key.values(), key=lambda job: (-lengths[job.key], job.name)))
