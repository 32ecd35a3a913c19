"""The process that does one job: `python -m msd.fleet.worker JOB_FOLDER`, or a fork of `fleet.launcher`.

By people only under torchrun, for several processes that share each batch:
`torchrun --nproc-per-node 2 -m msd.fleet.worker JOB_FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from msd.errors import MsdError
from msd.files import remove_leftovers
from msd.fleet.jobs import LOG, STOPPED, Job, PairsTask, State, read_status
from msd.fleet.local import num_cores
from msd.fleet.progress import Progress, StopRequested
from msd.owner import owned
from msd.training.interrupts import stop_requests


def work(folder: Path, stop: list[int], check: Callable[[], None]) -> None:
    """Do the job in `folder`, or go on with it. Raises MsdError, or StopRequested once state is saved."""
    from msd.training.engine import launched_engine

    job = Job.load(folder)
    with launched_engine(job.resources.device, job.resources.threads or num_cores()) as engine:
        if engine.is_main:
            remove_leftovers(folder)
        progress = Progress(folder, job.num_steps, stop, check, writes=engine.is_main)
        if isinstance(job.task, PairsTask):
            from msd.fleet.pairing import pair

            pair(job, job.task, folder, engine, progress)
        else:
            from msd.fleet.training import train

            train(job, job.task, folder, engine, progress)
        progress.done()


def main(folder: Path) -> int:
    """Do the job in `folder` as its only owner, and keep its books; returns the exit code."""
    from msd.training.engine import is_main_process

    if not is_main_process():  # the first of them owns it for all
        return _try(folder, lambda: None)
    try:
        with owned(folder, f"the worker of {folder.name}") as held:
            return _try(folder, held.check)
    except MsdError as error:  # another's: its books are not ours to write
        return _say(error)


def _try(folder: Path, check: Callable[[], None]) -> int:
    try:
        with stop_requests() as stop:
            work(folder, stop, check)
    except StopRequested:
        return _finish(folder, "stopped", "", STOPPED)
    except MsdError as error:
        return _finish(folder, "failed", str(error), _say(error))
    except Exception as error:
        import traceback

        traceback.print_exc()  # goes to the job's log
        return _finish(folder, "failed", f"{type(error).__name__}: {error} (see {folder / LOG})", 1)
    return 0


def _say(error: MsdError) -> int:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    return error.exit_code


def _finish(folder: Path, state: State, error: str, code: int) -> int:
    from msd.training.engine import is_main_process

    if is_main_process():
        status = read_status(folder)
        status.state, status.error = state, error
        status.write(folder)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
