"""A sample of `benchmarks/abuse`, all of which must be as promised; and that the harness sees what it is there to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.abuse.case import Case, Fault  # noqa: E402
from benchmarks.abuse.judge import ERROR, FINE, Expect, judge  # noqa: E402
from benchmarks.abuse.runner import run_cases  # noqa: E402
from benchmarks.abuse.scene import Scene  # noqa: E402
from benchmarks.abuse.tree import differences, snapshot  # noqa: E402
from benchmarks.abuse.world import World  # noqa: E402

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="watches processes as Linux shows them")

NUM, SEED, PROMISED = 150, 0, 0.99


def test_of_a_sample_of_all_abuse_nothing_is_lost_and_nearly_all_is_as_promised(tmp_path: Path) -> None:
    """Its limits of time are wider than the benchmark's, as other tests run beside it."""
    details = tmp_path / "details.json"
    command = [sys.executable, "-m", "benchmarks.abuse", "--quick", "--sample", str(NUM), "--seed", str(SEED)]
    done = subprocess.run(
        [*command, "--patience", "3", "--json", str(details)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert details.exists(), done.stdout + done.stderr
    outcomes = json.loads(details.read_text())
    assert len(outcomes) == NUM
    offenders = [f"{one['id']}: {fault['kind']}: {fault['text']}" for one in outcomes for fault in one["faults"]]
    grave = [text for text in offenders if text.split(": ")[1] not in ("message", "code")]
    assert not grave, "\n".join(grave)
    # The rest are sentences that could say more, and refusals where more could be done: docs/reliability.md counts them.
    assert sum(bool(one["faults"]) for one in outcomes) <= NUM * (1 - PROMISED), "\n".join(offenders)


def faults_of(tmp_path: Path, play: Callable[[Scene], list[Fault]]) -> set[str]:
    """The kinds of fault that the harness finds in one case."""
    (outcome,) = run_cases([Case("self", "check", play)], World(tmp_path / "world"), tmp_path)
    assert not outcome.skipped
    return {fault.kind for fault in outcome.faults}


def say(code: int, *lines: str, stdout: str = "") -> Callable[[], object]:
    """A program that speaks and ends."""

    def action() -> None:
        sys.stdout.write(stdout)
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.exit(code)

    return action


SENTENCE = "RunError: x is not a run; give another."


@pytest.mark.parametrize(
    ("action", "expect", "found"),
    [
        (say(0), FINE, set()),
        (say(2, "student-0: running", SENTENCE), ERROR, set()),
        (say(2, SENTENCE), Expect((2,), names=("x is",)), set()),
        (say(2, SENTENCE), Expect((2,), names=("y is",)), {"message"}),
        (say(2), ERROR, {"message"}),
        (say(2, "Usage: msd", "no such option"), ERROR, {"message"}),
        (say(2, SENTENCE, SENTENCE), ERROR, {"message"}),
        (say(2, "RunError: x is", "not a run."), ERROR, {"message"}),
        (say(2, "RunError: 'NoneType' object is not subscriptable"), ERROR, {"message"}),
        (say(2, "RunError: \x1b[31m is not a run."), ERROR, {"message"}),
        (say(2, SENTENCE), FINE, {"code"}),
        (say(0), ERROR, {"code"}),
        (say(0, "the file a.json was set aside"), Expect((0,), warns=("a.json",)), set()),
        (say(0, "done"), Expect((0,), warns=("a.json",)), {"message"}),
        (lambda: 1 / 0, ERROR, {"traceback"}),
        (lambda: time.sleep(60), FINE, {"hang"}),
        (lambda: os.kill(os.getpid(), 9), FINE, {"code", "message"}),
    ],
)
def test_what_a_command_says_and_how_it_ends_is_judged(
    tmp_path: Path, action: Callable[[], object], expect: Expect, found: set[str]
) -> None:
    assert faults_of(tmp_path, lambda scene: judge(scene.call(action, seconds=1.0), expect)) == found


@pytest.mark.parametrize(
    ("stdout", "found"),
    [('{"a": null}\n', set()), ("{} {}", {"json"}), ('{"a": NaN}', {"json"}), ("Loading...\n{}", {"json"}), ("", {"json"})],
)
def test_json_is_one_value_and_nothing_else(tmp_path: Path, stdout: str, found: set[str]) -> None:
    def play(scene: Scene) -> list[Fault]:
        return judge(scene.finish(scene.start("status", "--json", action=say(0, stdout=stdout))), FINE)

    assert faults_of(tmp_path, play) == found


@pytest.mark.parametrize(
    ("harm", "found"), [(Path.unlink, {"lost"}), (lambda path: path.write_text("other"), {"lost"}), (Path.read_text, set())]
)
def test_a_lost_or_changed_file_of_the_users_is_seen(
    tmp_path: Path, harm: Callable[[Path], object], found: set[str]
) -> None:
    def play(scene: Scene) -> list[Fault]:
        mine = scene.keep(scene.work / "mine.txt")
        scene.call(lambda: harm(mine))
        return []

    assert faults_of(tmp_path, play) == found


def test_what_a_failed_command_wrote_is_seen(tmp_path: Path) -> None:
    def play(scene: Scene) -> list[Fault]:
        (scene.work / "result.txt").write_text("finished")
        before = snapshot(scene.folder)
        scene.call(lambda: [(scene.work / name).write_text("half") for name in ("result.txt", "new.txt", "timings.json")])
        return differences(before, snapshot(scene.folder))

    assert faults_of(tmp_path, play) == {"lost", "tree"}


def test_a_temporary_file_is_seen(tmp_path: Path) -> None:
    def play(scene: Scene) -> list[Fault]:
        scene.call(lambda: (scene.work / ".recipe.json.123.tmp").touch())
        return []

    assert faults_of(tmp_path, play) == {"leftover"}


def test_a_process_left_behind_is_seen_and_ended(tmp_path: Path) -> None:
    def leave_one() -> None:
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        (tmp_path / "number").write_text(str(child.pid))

    def play(scene: Scene) -> list[Fault]:
        scene.patience = 0.1
        scene.finish(scene.start(action=leave_one), seconds=100)
        return []

    assert faults_of(tmp_path, play) == {"orphan"}
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "number").read_text()), 0)


def test_a_case_that_breaks_is_no_success(tmp_path: Path) -> None:
    assert faults_of(tmp_path, lambda scene: [Fault("wrong", str(1 / 0))]) == {"harness"}
