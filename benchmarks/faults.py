"""Kill everything at random moments, run the same commands again, and compare with a run that was left alone.

    python benchmarks/faults.py --kills 20 --seed 0        # Linux; about a minute a kill on 2 CPU cores
    python benchmarks/faults.py --kills 5 --set dm.num_updates=300 --set rows={}        # more of them in mid-training

From pretraining to the report of a small recipe. A kill is SIGKILL to the command and all its workers at one instant,
uniformly over the undisturbed duration. Afterwards every weight, pair and score must be bit for bit the undisturbed ones,
and neither a process, a temporary file nor a checkpoint may be left over. Prints a line a kill, then the count; exit code 1
unless all held.
"""

from __future__ import annotations

import argparse
import contextlib
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


def commands(folder: Path, recipe: list[str]) -> list[list[str]]:
    """`recipe` is its name and what is to be changed of it, as the verbs take them."""
    msd = [sys.executable, "-c", "from msd.cli import main; main()"]
    teacher = folder / "pretrain" / "teacher"
    return [
        [*msd, "pretrain", *recipe, "--out", str(folder / "pretrain")],
        [*msd, "demo", *recipe, "--set", f"teacher.source={teacher}", "--out", str(folder / "run")],
    ]


def command_line(number: int) -> list[str]:
    """The words that a process was started with; none once it is gone, or a zombie."""
    try:
        return (Path("/proc") / str(number) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def processes_of(folder: Path) -> list[int]:
    """Every process, except this one, whose command line names the folder or a place below it."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    places = (f"{folder}/", f"={folder}/")
    return [
        number
        for number in numbers
        if number != os.getpid() and any(place in f"{word}/" for word in command_line(number) for place in places)
    ]


def kill_all(folder: Path) -> None:
    """SIGKILL to every process of the folder, again while one is left: a command may be starting a worker just now."""
    while numbers := processes_of(folder):
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def run(folder: Path, recipe: list[str], kill_after: float | None = None) -> str:
    """Run all commands; with `kill_after` seconds, kill everything then. Returns what was being done at that moment."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with (folder / "log.txt").open("ab") as log:
        for command in commands(folder, recipe):
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            while process.poll() is None:
                if kill_after is not None and time.monotonic() - begin >= kill_after:
                    doing = at_work(folder)
                    kill_all(folder)
                    process.wait()
                    return doing
                time.sleep(0.005)
            if process.returncode != 0:
                raise SystemExit(f"{' '.join(command[3:])} ended with code {process.returncode}; see {folder / 'log.txt'}")
    return "nothing, it was over"


def at_work(folder: Path) -> str:
    """The jobs whose workers are there, and how far they say they are, for people."""
    found = []
    for number in processes_of(folder):
        words = command_line(number)
        if "msd.fleet.worker" in words:
            place = Path(words[-1])
            try:
                value = json.loads((place / "status.json").read_text())
            except (OSError, ValueError):
                continue
            began = f"{value['step']} of {value['num_steps']}" if value["state"] == "running" else "starting"
            found.append(f"{place.name}: {began}")
    return ", ".join(sorted(found)) or "the command alone"


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
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    recipe = [options.recipe, *(word for override in options.overrides for word in ("--set", override))]
    out = options.out or Path(tempfile.mkdtemp(prefix="msd-faults-"))
    begin = time.monotonic()
    run(out / "whole", recipe)
    duration = time.monotonic() - begin
    expected = content(out / "whole")
    print(f"undisturbed: {duration:.0f} s, {len(expected)} things to compare", flush=True)
    moments, held = random.Random(options.seed), 0
    for number in range(options.kills):
        folder, moment = out / f"kill-{number}", moments.uniform(0, duration)
        doing = run(folder, recipe, kill_after=moment)
        run(folder, recipe)
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
