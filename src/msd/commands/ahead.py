"""The teacher's rows, measured while students train: a process of low priority, which takes what cores lie idle.

`python -m msd.commands.ahead RUN` is that process. What it measures is kept in the run, where the evaluation finds it; it
ends with the command that started it, and what it has not done by then the evaluation does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msd.run import Run

NICENESS = 10
"""A tenth of what others get of a core that is wanted; all of one that is not."""


@contextmanager
def measuring_ahead(run: Run) -> Iterator[None]:
    """Measure the quality of the run's teacher beside the block, then wait for what is left; on an error, do not."""
    # No place for its complaints: what it cannot measure the evaluation tries anew, and says.
    process = subprocess.Popen(
        [sys.executable, "-m", "msd.commands.ahead", str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield
        with run.timed("the teacher's rows"):
            process.wait()
    finally:
        process.kill()
        process.wait()


def measure(run: Run) -> None:
    """Measure what the teacher's rows need and is not kept yet. Raises MsdError."""
    import torch

    from msd.commands.evaluate import quality_of, teacher_subjects
    from msd.conditions.partition import Partition
    from msd.data.images import load_images
    from msd.evaluation.bench import Bench
    from msd.evaluation.kept import Kept
    from msd.teachers.folder import load_teacher

    torch.set_num_threads(1)
    recipe = run.recipe
    teacher = load_teacher(recipe.teacher.source)
    partition, noise_shape = Partition.load(run.partition), teacher.denoiser.spec.noise_shape
    bench = Bench(load_images(recipe.data.name), partition, recipe.evaluation, noise_shape)
    kept = Kept(run.evaluations, lambda sentence: None, waited_for=False)
    for subject in teacher_subjects(teacher).values():
        kept.answer(quality_of(subject, bench, recipe.device), lambda subject=subject: bench.row(subject.sampler))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # until the command closes it, or is gone
    os._exit(1)


def main() -> None:
    os.nice(NICENESS)
    with suppress(OSError):  # on desktops Linux weighs sessions, not processes, against each other
        Path("/proc/self/autogroup").write_text(str(NICENESS), encoding="ascii")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    measure(Run.open(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
