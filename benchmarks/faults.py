"""Kill everything at random moments, run the same commands again, and compare with a run that was left alone.

    python benchmarks/faults.py --kills 20 --seed 0        # Linux; about a minute a kill on 2 CPU cores

From pretraining to the report of a small recipe. A kill is SIGKILL to the command and all its workers at one instant,
uniformly over the undisturbed duration. Afterwards every weight, pair and score must be bit for bit the undisturbed ones,
and neither a process, a temporary file nor a checkpoint may be left over. Prints a line a kill, then the count; exit code 1
unless all held.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUALITY = ("frechet_distance", "kid", "precision", "recall", "label_accuracy", "per_part")


def commands(folder: Path, recipe: str) -> list[list[str]]:
    msd = [sys.executable, "-c", "from msd.cli import main; main()"]
    teacher = folder / "pretrain" / "teacher"
    return [
        [*msd, "pretrain", recipe, "--out", str(folder / "pretrain")],
        [*msd, "demo", recipe, "--set", f"teacher.source={teacher}", "--out", str(folder / "run")],
    ]


def processes_of(folder: Path) -> list[int]:
    """Every process, except this one, whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(folder) in words and state != "Z":
                found.append(int(entry.name))
    return found


def run(folder: Path, recipe: str, kill_after: float | None = None) -> str:
    """Run all commands; with `kill_after` seconds, kill everything then. Returns what was being done at that moment."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with (folder / "log.txt").open("ab") as log:
        for command in commands(folder, recipe):
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            while process.poll() is None:
                if kill_after is not None and time.monotonic() - begin >= kill_after:
                    doing = at_work(folder)
                    for number in processes_of(folder):
                        try:
                            os.kill(number, signal.SIGKILL)
                        except ProcessLookupError:
                            continue
                    process.wait()
                    return doing
                time.sleep(0.005)
            if process.returncode != 0:
                raise SystemExit(f"{' '.join(command[3:])} ended with code {process.returncode}; see {folder / 'log.txt'}")
    return "nothing, it was over"


def at_work(folder: Path) -> str:
    """The jobs that say they are running, for people."""
    running = []
    for status in folder.glob("*/jobs/*/status.json"):
        try:
            value = json.loads(status.read_text())
        except (OSError, ValueError):
            continue
        if value["state"] == "running":
            running.append(f"{status.parent.name} {value['step']}/{value['num_steps']}")
    return ", ".join(sorted(running)) or "the command alone"


def content(folder: Path) -> dict[str, str]:
    """All that must be equal: a hash of every tensor file by its place, and every score."""
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
    rows = json.loads((folder / "run" / "report" / "metrics.json").read_text())["rows"]
    return found | {f"scores of {name}": json.dumps([row[key] for key in QUALITY]) for name, row in rows.items()}


def leftovers(folder: Path) -> list[str]:
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    checkpoints = [str(path.relative_to(folder)) for path in folder.rglob("checkpoints*")]
    return [*hidden, *checkpoints, *(f"process {number}" for number in processes_of(folder))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--out", type=Path, help="keep everything here (a temporary folder by default)")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="msd-faults-"))
    begin = time.monotonic()
    run(out / "whole", options.recipe)
    duration = time.monotonic() - begin
    expected = content(out / "whole")
    print(f"undisturbed: {duration:.0f} s, {len(expected)} things to compare", flush=True)
    moments, held = random.Random(options.seed), 0
    for number in range(options.kills):
        folder, moment = out / f"kill-{number}", moments.uniform(0, duration)
        doing = run(folder, options.recipe, kill_after=moment)
        run(folder, options.recipe)
        found = content(folder)
        differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        left = leftovers(folder)
        good = not differing and not left
        held += good
        verdict = "identical" if good else f"DIFFERS {differing[:3]} LEFT {left[:3]}"
        print(f"kill {number + 1:2} after {moment:5.1f} s ({doing}): {verdict}", flush=True)
        if good and options.out is None:
            shutil.rmtree(folder)
    print(f"{held} of {options.kills} bit-identical with nothing left over")
    sys.exit(held < options.kills)


if __name__ == "__main__":
    main()
