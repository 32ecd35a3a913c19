"""Stop everything at random moments, run the same commands again, and compare with a run that was left alone.

    python benchmarks/faults.py --stops 60 --seed 0        # Linux; about a minute a stop on 2 CPU cores
    python benchmarks/faults.py --stops 5 --set dm.num_updates=300 --set rows={}        # more of them in mid-training
    python benchmarks/faults.py --seams --set stages=[tsm,dm,adm] --set rows={}         # and between two files

From pretraining to the report of a small recipe, by each verb of its own. The moments are uniform over the undisturbed
duration; the kinds take turns: SIGKILL to the command and all its workers at one instant, SIGKILL to the command alone,
SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a closed terminal) to the command. After a stop no process may be left; after the same
commands again every weight, pair and score must be bit for bit the undisturbed ones, and no temporary file, checkpoint or
owner's mark be left over. Prints a line a stop, then the count; exit code 1 unless all held.

`--seams` stops at no random moments: a worker of student 0 dies (SIGKILL) right after a file of each kind came into place,
in each stage (a checkpoint, the list of them), between its end and the next one's beginning (what it hands on, what it says
of itself), and after the result: see `traps/`.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("SIGKILL to all", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
TRAPS = Path(__file__).parent / "traps"
STUDENT = "run/jobs/student-0-*"
QUALITY = ("frechet_distance", "kid", "precision", "recall", "label_accuracy", "per_part")


def commands(folder: Path, recipe: list[str]) -> list[list[str]]:
    """`recipe` is its name and what is to be changed of it, as the verbs take them."""
    msd = [sys.executable, "-c", "from msd.cli import main; main()"]
    teacher, run = folder / "pretrain" / "teacher", folder / "run"
    with_teacher = [*recipe, "--set", f"teacher.source={teacher}", "--out", str(run)]
    return [
        [*msd, "pretrain", *recipe, "--out", str(folder / "pretrain")],
        [*msd, "pairs", *with_teacher],
        [*msd, "distill", *with_teacher],
        [*msd, "eval", str(run / "cohort"), "--out", str(folder / "eval.json")],
        [*msd, "demo", *with_teacher],
        [*msd, "report", str(run)],
    ]


def processes_of(folder: Path) -> list[int]:
    """Every process whose working directory is `folder`: the command, which is started there, and what it started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


def stop(folder: Path, command: subprocess.Popen[bytes], kind: str) -> int:
    """Stop the command in one of the `KINDS` and wait until it has ended; returns its exit code."""
    if kind == "SIGKILL to all":
        while numbers := processes_of(folder):  # again while one is left: it may be starting a worker just now
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
    else:
        command.send_signal(getattr(signal, kind))
    return command.wait(120)


def orphans(folder: Path) -> list[str]:
    """Processes that are still there a moment after their command has ended."""
    deadline = time.monotonic() + 5
    while (numbers := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [f"process {number}" for number in numbers]


@dataclass
class Outcome:
    """What was being done when it was stopped, and what was wrong about the stop itself."""

    doing: str = "nothing, it was over"
    wrong: list[str] = field(default_factory=list)


def run(folder: Path, recipe: list[str], stop_after: float | None = None, kind: str = "", trap: str = "") -> Outcome:
    """Run all commands; with `stop_after` seconds, stop the one that runs then, and run no other. With a `trap`, a worker
    dies when that file comes into place, and no other command follows the one that tells of it."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    environment = os.environ | ({"MSD_TRAP": str(folder.absolute() / trap), "PYTHONPATH": python_path()} if trap else {})
    with (folder / "log.txt").open("ab") as log:
        for command in commands(folder, recipe):
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
            while process.poll() is None:
                if stop_after is not None and time.monotonic() - begin >= stop_after:
                    doing = f"{command[3]}, {at_work(folder)}"
                    code = stop(folder, process, kind)
                    promised = {0, -signal.SIGKILL} if "KILL" in kind else {0, 1}
                    wrong = [] if code in promised else [f"exit code {code}"]
                    return Outcome(doing, [*wrong, *orphans(folder)])
                time.sleep(0.005)
            if trap and process.returncode == 1:
                return Outcome(command[3], orphans(folder))
            if process.returncode != 0:
                raise SystemExit(f"{' '.join(command[3:])} ended with code {process.returncode}; see {folder / 'log.txt'}")
    return Outcome(wrong=["nothing stopped it"] if trap else [])


def python_path() -> str:
    return os.pathsep.join([str(TRAPS), *filter(None, [os.environ.get("PYTHONPATH")])])


def seams(whole: Path) -> list[str]:
    """Where each kind of file came into place that a worker of student 0 made in an undisturbed run."""
    (student,) = whole.glob(STUDENT)
    *former, last = sorted(place.name for place in student.glob("stages/*"))
    files = ("checkpoints/step-*", "checkpoints/checkpoints.json")
    handed_on = ("bundle.safetensors", "history.json")
    found = [f"{STUDENT}/stages/{stage}/{file}" for stage in former for file in (*files, *handed_on)]
    return [*found, *(f"{STUDENT}/stages/{last}/{file}" for file in files), f"{STUDENT}/result"]


def at_work(folder: Path) -> str:
    """The jobs that are being done, and how far they say they are, for people."""
    found = []
    for place in folder.glob("*/jobs/*/owner.json"):
        with contextlib.suppress(OSError, ValueError):
            value = json.loads((place.parent / "status.json").read_text())
            began = f"{value['step']} of {value['num_steps']}" if value["state"] == "running" else "starting"
            found.append(f"{place.parent.name}: {began}")
    return ", ".join(sorted(found)) or "the command alone"


def content(folder: Path) -> dict[str, str]:
    """All that must be equal: a hash of every tensor file by its place, and every score."""
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }
    for place in (folder / "run" / "report" / "metrics.json", folder / "eval.json"):
        rows = json.loads(place.read_text())["rows"]
        found |= {f"{place.name} {name}": json.dumps([row[key] for key in QUALITY]) for name, row in rows.items()}
    return found


def leftovers(folder: Path) -> list[str]:
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    named = [str(path.relative_to(folder)) for name in ("checkpoints*", "owner.json") for path in folder.rglob(name)]
    return [*hidden, *named, *orphans(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=60)
    parser.add_argument("--seams", action="store_true", help="kill a worker between two files, in place of random moments")
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
    held, stops = 0, planned_stops(options, duration, out / "whole")
    for number, (title, how) in enumerate(stops):
        folder = out / f"stop-{number}"
        outcome = run(folder, recipe, **how)
        run(folder, recipe)
        found = content(folder)
        differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        wrong = [*outcome.wrong, *(f"{key} differs" for key in differing), *(f"{one} is left" for one in leftovers(folder))]
        held += not wrong
        verdict = f"WRONG: {', '.join(wrong[:4])}" if wrong else "identical"
        print(f"{number + 1:2} {title} ({outcome.doing}): {verdict}", flush=True)
        if not wrong and options.out is None:
            shutil.rmtree(folder)
    print(f"{held} of {len(stops)} bit-identical with nothing left over")
    sys.exit(held < len(stops))


def planned_stops(options: argparse.Namespace, duration: float, whole: Path) -> list[tuple[str, dict[str, Any]]]:
    """What to do to each run, as people and as `run` are told it."""
    if options.seams:
        return [(f"SIGKILL after {trap.removeprefix(STUDENT)[1:]}", {"trap": trap}) for trap in seams(whole)]
    moments = random.Random(options.seed)
    return [
        (f"{kind} after {moment:5.1f} s", {"stop_after": moment, "kind": kind})
        for kind, moment in ((KINDS[number % len(KINDS)], moments.uniform(0, duration)) for number in range(options.stops))
    ]


if __name__ == "__main__":
    main()
