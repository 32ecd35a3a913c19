"""Abuse every input, command and moment of `msd`, and judge each case by what is promised.

    python -m benchmarks.abuse                          # all; Linux; about 20 minutes on 2 CPU cores
    python -m benchmarks.abuse --sample 150 --quick     # a stratified sample without the slow cases
    python -m benchmarks.abuse --case GROUP/NAME        # one, with all that it said (--keep leaves its folder)

Run it from the root of the repository. Prints a table by group, then what was not as promised and why; exit
code 1 unless all was. docs/reliability.md says what is promised.
"""

from __future__ import annotations

import os

# Before torch is imported: a case has one thread, and a forked process must not meet another's.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.abuse.groups import all_cases, sample
from benchmarks.abuse.runner import clear, run_cases, save
from benchmarks.abuse.table import print_faults, print_table, progress
from benchmarks.abuse.warm import import_everything
from benchmarks.abuse.world import open_world

SHARED_MEMORY = Path("/dev/shm")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="GROUP", help="only this group (may be repeated)")
    parser.add_argument("--case", action="append", metavar="GROUP/NAME", help="only this case, with all that it said")
    parser.add_argument("--sample", type=int, metavar="N", help="so many cases, of every group its share")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--quick", action="store_true", help="without the cases that train in fresh processes")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--patience", type=float, default=1.0, help="factor of every limit of time, for busy machines")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all details there")
    parser.add_argument(
        "--world", type=Path, metavar="FOLDER", help="make what cases are played with there, or use it again"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folders of cases")
    parser.add_argument("--list", action="store_true", help="print the cases' names and do nothing else")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))  # through `finally`: nothing stays behind
    begin = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="msd-abuse-", dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
    import_everything()
    try:
        world = open_world(chosen.world or place / "world")
        cases = all_cases(world)
        if chosen.only:
            cases = [case for case in cases if case.group in chosen.only]
        if chosen.quick:
            cases = [case for case in cases if not case.is_slow]
        if chosen.case:
            cases = [case for case in cases if case.id in chosen.case]
        if chosen.sample:
            cases = sample(cases, chosen.sample, chosen.seed)
        if chosen.list:
            print("\n".join(case.id for case in cases))
            return
        print(f"{len(cases)} cases; what they are played with took {time.monotonic() - begin:.0f} s", flush=True)
        outcomes = run_cases(
            cases,
            world,
            place,
            jobs=chosen.jobs,
            patience=chosen.patience,
            keep=chosen.keep,
            on_outcome=progress(len(cases), verbose=bool(chosen.case)),
        )
        print_table(outcomes, time.monotonic() - begin)
        print_faults(outcomes)
        if chosen.json:
            save(outcomes, chosen.json)
        sys.exit(not all(outcome.held for outcome in outcomes))
    finally:
        if chosen.keep:
            print(f"kept in {place}")
        else:
            clear(place)


if __name__ == "__main__":
    main()
