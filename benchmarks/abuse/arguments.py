"""Words on the command line: missing, unknown, of the wrong type, huge, empty, and places that are not to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import EITHER, ERROR, FINE, Expect, judge
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.tree import differences, snapshot
from benchmarks.abuse.world import World

RUN_VERBS = ("demo", "pretrain", "partition", "pairs", "distill")
RECIPE_VERBS = (*RUN_VERBS, "plan", "shrink")
FOLDER_VERBS = ("status", "report", "sample", "eval")
ALL_VERBS = (*RECIPE_VERBS, *FOLDER_VERBS, "recipes")
OUT_VERBS = (*RUN_VERBS, "report", "sample", "eval", "shrink")
ODD_WORDS = {
    "empty": "",
    "space": " ",
    "markup": "[bold red]x[/bold red]",
    "open-markup": "[/nothing]",
    "unicode": "\u6a21\u578b-\U0001f4a5",
    "escape": "\x1b[31mred",
    "newline": "a\nb",
    "long": "x" * 5000,
    "dashes": "--",
    "surrogate": "a\udcffb",
    "percent": "%s%n{0}{run}",
}


def subject(scene: Scene, verb: str) -> list[object]:
    """The words a verb needs at least."""
    if verb in RECIPE_VERBS:
        return [*scene.world.recipe]
    if verb == "recipes":
        return ["smoke"]
    run = scene.finished()
    return [run / "cohort" if verb in ("sample", "eval") else run]


def untouched(name: str, words: Callable[[Scene], list[object]], expect: Expect = ERROR, seconds: float = 10.0) -> Case:
    """A command that fails leaves its whole world as it was."""

    def play(scene: Scene) -> list[Fault]:
        arguments = words(scene)
        before = snapshot(scene.folder)
        done = scene.run(*arguments, seconds=seconds)
        faults = judge(done, expect)
        return faults + (differences(before, snapshot(scene.folder)) if done.code not in (0, None) else [])

    return Case("arguments", name, play)


def cases(world: World) -> Iterator[Case]:
    yield from _missing_and_unknown()
    yield from _odd_subjects()
    yield from _numbers()
    yield from _outs()
    yield from _teachers()
    yield from _fine()


def _missing_and_unknown() -> Iterator[Case]:
    for verb in ALL_VERBS:
        if verb not in ("demo", "recipes"):
            yield untouched(f"{verb}/nothing", lambda scene, verb=verb: [verb])
        yield untouched(f"{verb}/unknown-option", lambda scene, verb=verb: [verb, *subject(scene, verb), "--surprise"])
        yield untouched(f"{verb}/one-word-more", lambda scene, verb=verb: [verb, *subject(scene, verb), "more"])
        yield untouched(f"{verb}/option-without-value", lambda scene, verb=verb: [verb, *subject(scene, verb), "--out"])
        yield untouched(f"{verb}/json-unknown", lambda scene, verb=verb: [verb, "--json", "nowhere", "--surprise"])
    for verb in ("distil", "", "--json", "Demo", "msd", "[bold]"):
        yield untouched(f"msd/verb-{verb or 'empty'}", lambda scene, verb=verb: [verb])


def _odd_subjects() -> Iterator[Case]:
    for verb in (*RECIPE_VERBS, *FOLDER_VERBS, "recipes"):
        chosen = (
            list(ODD_WORDS)
            if verb in ("plan", "status", "sample")
            else ["empty", "open-markup", "unicode", "newline", "long"]
        )
        for name in chosen:
            if verb == "recipes" and name == "empty":
                continue
            words = [verb, "--", ODD_WORDS[name]] if ODD_WORDS[name].startswith("-") else [verb, ODD_WORDS[name]]
            yield untouched(f"{verb}/subject-{name}", lambda scene, words=words: [*words])
        yield untouched(f"{verb}/subject-json", lambda scene, verb=verb: [verb, "no-such-thing", "--json"])
        for name, place in (
            ("device", "/dev/null"),
            ("root", "/"),
            ("pipe", "pipe"),
            ("folder", "."),
            ("zeros", "/dev/zero"),
        ):
            yield untouched(f"{verb}/subject-{name}", lambda scene, verb=verb, place=place: [verb, _place(scene, place)])


CHECKPOINTS = {
    "empty": b"",
    "not-a-pickle": bytes(range(256)) * 8,
    "web-page": b"<!DOCTYPE html><html></html>",
    "lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "runs-something": b"cos\nmkdir\n(Vran\ntR.",
    "evaluates": b"cbuiltins\neval\n(V__import__('os').mkdir('ran')\ntR.",
    "hides-a-call": b"}Vema\n}Vweight\ncos\nsystem\nss.",
    "numbers": b"}Vema\nK\x07s.",
    "endless": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f" + b"x",
    "deep": b"(l" * 5000 + b"a" * 4999 + b".",
}
"""Files under the name of a checkpoint that are none."""


def _teachers() -> Iterator[Case]:
    for verb, more in (("inspect", []), ("convert", ["folder"]), ("sample", ["--out", "grid.png"])):
        yield untouched(f"teacher-{verb}/nothing", lambda scene, verb=verb: ["teacher", verb])
        yield untouched(
            f"teacher-{verb}/unknown-option",
            lambda scene, verb=verb, more=more: ["teacher", verb, "packaged:digits", *more, "--surprise"],
        )
        for name, word in ODD_WORDS.items():
            yield untouched(
                f"teacher-{verb}/subject-{name}",
                lambda scene, verb=verb, more=more, word=word: (
                    ["teacher", verb, *more, "--", word] if word.startswith("-") else ["teacher", verb, word, *more]
                ),
            )
        for place in ("/dev/null", "/dev/zero", "/", ".", "pipe", "packaged:nothing", "packaged:../digits"):
            yield untouched(
                f"teacher-{verb}/subject-{place}",
                lambda scene, verb=verb, more=more, place=place: ["teacher", verb, _place(scene, place), *more],
            )
        for name, content in CHECKPOINTS.items():
            yield untouched(
                f"teacher-{verb}/checkpoint-{name}",
                lambda scene, verb=verb, more=more, content=content: [
                    "teacher",
                    verb,
                    _checkpoint(scene, content),
                    *more,
                ],
            )
    for value in ("rk4", "heun", "heun0", "", "heun99999999", "18"):
        yield untouched(
            f"teacher-sample/solver-{value!r}",
            lambda scene, value=value: ["teacher", "sample", "packaged:digits", f"--solver={value}"],
        )
    for value in ("0", "-1", "x", "100000000000"):
        yield untouched(
            f"teacher-sample/num-{value!r}",
            lambda scene, value=value: ["teacher", "sample", "packaged:digits", f"--num={value}"],
        )
    for value in ("10", "", "cat", "1,,2", "-1"):
        yield untouched(
            f"teacher-sample/labels-{value!r}",
            lambda scene, value=value: ["teacher", "sample", "packaged:digits", f"--labels={value}"],
        )


def _checkpoint(scene: Scene, content: bytes) -> Path:
    path = scene.work / "teacher.pkl"
    path.write_bytes(content)
    return path


def _place(scene: Scene, name: str) -> str:
    if name == "pipe":
        import os

        os.mkfifo(scene.work / "pipe")
    return name


def _numbers() -> Iterator[Case]:
    for value in ("-1", "1.5", "x", "", "9223372036854775808", "1e3", "nan", "\u0663", "0x10", " 7"):
        yield untouched(
            f"sample/seed-{value!r}",
            lambda scene, value=value: ["sample", *subject(scene, "sample"), f"--seed={value}"],
            _seed(value),
        )
        yield untouched(
            f"plan/seed-{value!r}",
            lambda scene, value=value: ["plan", *subject(scene, "plan"), f"--seed={value}"],
            _seed(value),
        )
    for value in ("0", "-3", "x", "", "1000000000000", "99999999999999999999", "2.5"):
        yield untouched(
            f"sample/num-{value!r}", lambda scene, value=value: ["sample", *subject(scene, "sample"), f"--num={value}"]
        )
    for value in ("10", "-1", "x", "", ",", "1,,2", "1.0", "99999999999999999999999", "3;4", "0-3", "nan", "[1]"):
        yield untouched(
            f"sample/labels-{value!r}", lambda scene, value=value: ["sample", *subject(scene, "sample"), f"--labels={value}"]
        )
        yield untouched(
            f"distill/students-{value!r}",
            lambda scene, value=value: ["distill", *subject(scene, "distill"), f"--students={value}"],
        )
    for value in ("-1", "1", "1.0", "x", "", "nan", "inf", "1e400", "0.1", "0,42", "42%", "\u0663"):
        yield untouched(
            f"shrink/reduce-{value!r}", lambda scene, value=value: ["shrink", *subject(scene, "shrink"), f"--reduce={value}"]
        )
    for verb in ("plan", "sample", "eval", "distill", "demo", "shrink"):
        for value in ("cuda", "cuda:99", "tpu", "", "[bold]", "cpu:x"):
            yield untouched(
                f"{verb}/device-{value!r}",
                lambda scene, verb=verb, value=value: [verb, *subject(scene, verb), f"--device={value}"],
                _device(verb, value),
            )
    for value in ("critic", "", "TEACHER", "[red]"):
        yield untouched(
            f"pretrain/network-{value!r}",
            lambda scene, value=value: ["pretrain", *subject(scene, "pretrain"), f"--network={value}"],
        )


def _seed(value: str) -> Expect:
    return EITHER if value in ("\u0663", " 7") else ERROR


def _device(verb: str, value: str) -> Expect:
    """A plan may be made for a machine that is elsewhere."""
    return EITHER if verb == "plan" and value.startswith("cuda") else ERROR


def _outs() -> Iterator[Case]:
    places: dict[str, Callable[[Scene], object]] = {
        "file": lambda scene: scene.keep(scene.work / "taken"),
        "foreign-folder": lambda scene: scene.keep(scene.work / "theirs" / "thesis.tex").parent,
        "below-a-file": lambda scene: scene.keep(scene.work / "taken") / "run",
        "link-to-itself": _loop,
        "link-to-file": _link_to_file,
        "device": lambda scene: "/dev/null",
        "below-proc": lambda scene: "/proc/nothing/run",
        "empty": lambda scene: "",
        "too-long": lambda scene: "x" * 300,
    }
    for verb in OUT_VERBS:
        for name, place in places.items():
            yield untouched(
                f"{verb}/out-{name}", lambda scene, verb=verb, place=place: _to(scene, verb, place(scene)), seconds=30
            )
        yield _read_only(verb)


def _to(scene: Scene, verb: str, place: object) -> list[object]:
    return [verb, *subject(scene, verb), "--out", place]


def _loop(scene: Scene) -> Path:
    (scene.work / "loop").symlink_to("loop")
    return scene.work / "loop"


def _link_to_file(scene: Scene) -> Path:
    scene.keep(scene.work / "taken")
    (scene.work / "link").symlink_to("taken")
    return scene.work / "link"


def _read_only(verb: str) -> Case:
    def play(scene: Scene) -> list[Fault]:
        closed = scene.work / "closed"
        closed.mkdir()
        closed.chmod(0o555)
        target = closed / {"sample": "x.npz", "eval": "x.json", "shrink": "x.json"}.get(verb, "run")
        done = scene.run(verb, *subject(scene, verb), "--out", target, is_humble=True, seconds=30)
        return judge(done, Expect((2,), names=("closed",)))

    return Case("arguments", f"{verb}/out-read-only", play)


def _fine() -> Iterator[Case]:
    """What is unusual and right all the same."""
    for verb in ALL_VERBS:
        yield untouched(f"{verb}/help", lambda scene, verb=verb: [verb, "--help"], FINE)
    yield untouched("recipes/json", lambda scene: ["recipes", "--json"], FINE)
    yield untouched("recipes/one-json", lambda scene: ["recipes", "digits", "--json"], FINE)
    yield untouched("plan/json", lambda scene: ["plan", *scene.world.recipe, "--json"], FINE)
    yield untouched("shrink/json", lambda scene: ["shrink", *subject(scene, "shrink"), "--reduce=0.42", "--json"], FINE, 30)
    yield untouched(
        "shrink/whole", lambda scene: ["shrink", *subject(scene, "shrink"), "--reduce=0", "--out=s.json"], FINE, 30
    )
    yield untouched("status/json", lambda scene: ["status", *subject(scene, "status"), "--json"], FINE)
    yield untouched("sample/json", lambda scene: ["sample", *subject(scene, "sample"), "--json", "--num=1"], FINE)
    yield untouched("eval/json", lambda scene: ["eval", *subject(scene, "eval"), "--json"], FINE, 30)
    yield untouched("report/json", lambda scene: ["report", *subject(scene, "report"), "--json"], FINE, 30)
    yield untouched(
        "sample/largest-seed",
        lambda scene: ["sample", *subject(scene, "sample"), "--num=1", "--labels=0", f"--seed={2**63 - 1}"],
        FINE,
    )
    yield untouched(
        "sample/out-unicode", lambda scene: ["sample", *subject(scene, "sample"), "--num=1", "--out=\u6a21 [b].png"], FINE
    )
    yield untouched(
        "partition/out-unicode", lambda scene: ["partition", *scene.world.recipe, "--out=\u6a21 [b]", "--json"], FINE
    )
    yield untouched("msd/version", lambda scene: ["--version"], FINE)
    yield untouched("msd/help", lambda scene: ["--help"], FINE)
