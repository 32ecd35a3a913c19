"""The process that does one job: `python -m msd.fleet.worker JOB_FOLDER`, or a fork of `fleet.launcher`.

By people only under torchrun, for several processes that share each batch:
`torchrun --nproc-per-node 2 -m msd.fleet.worker JOB_FOLDER`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path

from msd.errors import MsdError, RunError, heard_by
from msd.files import remove_leftovers
from msd.fleet.jobs import LAST_WORDS, LOG, STOPPED, Job, PairsTask, State, read_status, write_status
from msd.fleet.local import num_cores
from msd.fleet.progress import Progress, StopRequested
from msd.owner import owned
from msd.training.interrupts import stop_requests

OUT_OF_MEMORY = "memory ran out; lower the batch size, or train fewer at once (--set fleet.max_parallel=1)."


def work(folder: Path, stop: list[int], check: Callable[[], None]) -> None:
    """Do the job in `folder`, or go on with it. Raises MsdError, or StopRequested once state is saved."""
    from msd.training.engine import launched_engine

    job = Job.load(folder)
    resources = job.resources
    with launched_engine(resources.device, resources.threads or num_cores(), resources.num_micro_batches) as engine:
        if engine.is_main:
            remove_leftovers(folder)
        progress = Progress(folder, job.num_steps, stop, check, writes=engine.is_main)
        with heard_by(progress.warn):
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

    faulthandler.enable()  # a crash inside a library then leaves where it was in the job's log
    try:
        with stop_requests() as stop:  # before anything is owned: a request that comes early must leave no owner behind
            if not is_main_process():  # the first of them owns it for all
                return _try(folder, stop, lambda: None)
            with owned(folder, f"the worker of {folder.name}") as held:
                return _try(folder, stop, held.check)
    except MsdError as error:  # another's: its books are not ours to write
        return _say(error)


def _try(folder: Path, stop: list[int], check: Callable[[], None]) -> int:
    try:
        work(folder, stop, check)
    except StopRequested:
        return _finish(folder, "stopped", "", STOPPED)
    except MsdError as error:
        return _finish(folder, "failed", str(error), _say(error))
    except MemoryError:
        return _finish(folder, "failed", OUT_OF_MEMORY, _say(RunError(OUT_OF_MEMORY)))
    except Exception as error:
        import traceback

        traceback.print_exc()  # goes to the job's log
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _finish(folder, "failed", f"{reason} (see {folder / LOG})", 1)
    return 0


def _say(error: MsdError) -> int:
    """Into the job's log, and to the command: what the log and the status cannot hold is not lost."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
    if pipe := os.environ.get(LAST_WORDS):
        os.write(int(pipe), str(error).encode())
    return error.exit_code


def _finish(folder: Path, state: State, error: str, code: int) -> int:
    from msd.training.engine import is_main_process

    if is_main_process():
        status = read_status(folder)
        status.state, status.error = state, error
        write_status(status, folder)
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
