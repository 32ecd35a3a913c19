"""Files that users write: recipes, partition files, teachers' folders."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator

from benchmarks.abuse import damage as damages
from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.damage import Damage
from benchmarks.abuse.judge import EITHER, Expect, judge
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.settings import laughs
from benchmarks.abuse.tree import differences, snapshot
from benchmarks.abuse.world import World

GOOD_RECIPE = "name: mine\nsummary: what it does\npartition: {num_parts: 2}\ndm: {num_updates: 3, batch_size: 8}\n"
GOOD_PARTITION = "parts: [[0, 1, 2, 3], [4, 5, 6]]\nrest: 1\n"
LAUGHS = laughs()

BAD_YAML = {
    "laughs": f"dm: {LAUGHS}\n",
    "alias-of-itself": "dm: &a {weight: *a}\n",
    "list-of-itself": "rows: &a [*a]\n",
    "merge-of-itself": "dm: &a\n  <<: *a\n  weight: 1\n",
    "python-tag": "dm: !!python/object/apply:os.system ['touch pwned']\n",
    "unknown-tag": "dm: !mine {weight: 1}\n",
    "duplicate-key": "seed: 1\nseed: 2\n",
    "duplicate-inner-key": "dm: {weight: 1, weight: 2}\n",
    "duplicate-by-merge": "dm: {<<: {weight: 1}, <<: {weight: 2}}\n",
    "unhashable-key": "? [a, b]\n: 1\n",
    "mapping-as-key": "? {a: b}\n: 1\n",
    "number-as-key": "1: 2\n",
    "null-key": "~: 2\n",
    "two-documents": "seed: 1\n---\nseed: 2\n",
    "list": "- seed\n- 1\n",
    "word": "seed\n",
    "null": "~\n",
    "tabs": "dm:\n\tweight: 1\n",
    "zero-byte": "seed: 1\x00\n",
    "open-bracket": "dm: [1, 2\n",
    "deep": "dm: " + "[" * 5000 + "]" * 5000 + "\n",
    "deep-mapping": "dm: " + "{a: " * 3000 + "1" + "}" * 3000 + "\n",
    "no-such-date": "summary: 2001-13-45\n",
    "unknown-key": "surprise: 1\n",
    "near-key": "dm: {wieght: 1}\n",
    "nan": "dm: {weight: .nan}\n",
    "infinite": "dm: {weight: .inf}\n",
    "huge-integer": f"seed: {10**400}\n",
    "sexagesimal": "seed: 1:99:99\n",
    "binary": "summary: !!binary x\n",
    "set": "rows: !!set {a, b}\n",
    "markup-name": "name: '[/bold]'\n",
    "path-name": "name: ../../x\n",
    "wrong-types": "dm: []\nrows: 3\n",
}
"""Each is wrong."""
FINE_YAML = {
    "byte-order-mark": "\ufeffseed: 1\n",
    "windows-lines": "seed: 1\r\nsummary: x\r\n",
    "markup": "summary: '[/bold] [red]x'\ncost: '[link=file:///]y'\n",
    "unicode": "summary: \u6a21\u578b \U0001f4a5\n",
    "comments-only-after": "seed: 1\n# that is all\n",
    "yaml-words": "summary: 'no'\n",
}

BAD_PARTITIONS = {
    "laughs": f"parts: {LAUGHS}\n",
    "alias-of-itself": "parts: &a [*a]\n",
    "duplicate-key": "parts: [[0]]\nparts: [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]\n",
    "no-parts": "rest: 0\n",
    "parts-word": "parts: all\n",
    "parts-null": "parts: ~\n",
    "parts-empty": "parts: []\n",
    "an-empty-part": "parts: [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], []]\n",
    "class-twice": "parts: [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8, 9]]\n",
    "class-missing": "parts: [[0, 1], [2, 3]]\n",
    "class-outside": "parts: [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]\n",
    "class-negative": "parts: [[-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]\n",
    "class-huge": f"parts: [[0, {10**30}]]\nrest: 0\n",
    "class-word": "parts: [[zero, one]]\nrest: 0\n",
    "class-float": "parts: [[0.0, 1.0]]\nrest: 0\n",
    "class-true": "parts: [[true, false]]\nrest: 0\n",
    "class-nan": "parts: [[.nan]]\nrest: 0\n",
    "rest-outside": "parts: [[0], [1]]\nrest: 2\n",
    "rest-negative": "parts: [[0], [1]]\nrest: -1\n",
    "rest-true": "parts: [[0], [1]]\nrest: true\n",
    "rest-list": "parts: [[0], [1]]\nrest: [0]\n",
    "rest-word": "parts: [[0], [1]]\nrest: last\n",
    "unknown-key": "parts: [[0], [1]]\nrest: 1\nname: x\n",
    "list": "[[0, 1], [2]]\n",
    "flat": "parts: [0, 1, 2]\n",
    "nested": "parts: [[[0, 1]], [[2]]]\nrest: 0\n",
    "deep": "parts: " + "[" * 5000 + "]" * 5000 + "\n",
    "null": "~\n",
    "unhashable-key": "? [a]\n: 1\n",
    "python-tag": "parts: !!python/object/apply:os.system ['touch pwned']\n",
}


def cases(world: World) -> Iterator[Case]:
    yield from _texts("recipe", BAD_YAML, Expect((2,), names=("mine.yaml", "mine", "recipe", ":")))
    yield from _texts("recipe", FINE_YAML, Expect((0,)))
    yield from _texts("partition", BAD_PARTITIONS, Expect((2,)))
    for kind, good in (("recipe", GOOD_RECIPE), ("partition", GOOD_PARTITION)):
        for name, harm in damages.TYPES.items():
            yield _file(
                kind, f"type-{name}", good, harm, Expect((2,), names=("mine.yaml", "mine")), is_humble=name == "unreadable"
            )
        for name, harm in damages.byte_damages(random.Random(kind), truncations=4, flips=6).items():
            yield _file(kind, name, good, harm, EITHER)
    yield from _teachers(world)
    yield from _starts()


def _texts(kind: str, texts: dict[str, str], expect: Expect) -> Iterator[Case]:
    for name, text in texts.items():
        yield _file(kind, name, text, lambda path: None, expect)


def _file(kind: str, name: str, text: str, harm: Damage, expect: Expect, *, is_humble: bool = False) -> Case:
    def play(scene: Scene) -> list[Fault]:
        path = scene.work / "mine.yaml"
        path.write_text(text, newline="")
        harm(path)
        scene.guard(path) if path.exists() else None
        words: list[object] = ["partition", path, "--set", f"teacher.source={scene.world.teacher}"]
        if kind == "partition":
            own = ("--set", "partition.method=file", "--set", f"partition.file={path}", "--set", "rows={}")
            words = ["partition", *scene.world.recipe, *own]
        return _judged(scene, [*words, "--json", "--out", scene.work / "run"], expect, is_humble)

    return Case("user-files", f"{kind}/{name}", play)


def _judged(scene: Scene, words: list[object], expect: Expect, is_humble: bool) -> list[Fault]:
    before = snapshot(scene.folder)
    done = scene.run(*words, is_humble=is_humble)
    faults = judge(done, expect)
    if (scene.work / "pwned").exists():
        faults.append(Fault("wrong", "the file ran a command"))
    return faults + (differences(before, snapshot(scene.folder)) if done.code != 0 else [])


TEACHER_FILES = ("denoiser.json", "config.json", "diffusion_pytorch_model.safetensors")


def _teachers(world: World) -> Iterator[Case]:
    for file in TEACHER_FILES:
        for name, harm in damages.TYPES.items():
            yield _teacher(file, f"type-{name}", harm, Expect((2,)), is_humble=name == "unreadable")
        for name, harm in damages.byte_damages(random.Random(file), truncations=2, flips=3).items():
            sealed = file != "denoiser.json" or name.startswith("truncated")
            yield _teacher(file, name, harm, Expect((2,)) if sealed else EITHER)
    for name, change in damages.WHOLE.items():
        yield _teacher(
            "denoiser.json", name, damages.rewritten(change), Expect((2,)) if name in damages.BREAKING else EITHER
        )
    yield from _teacher_keys(world)


def _teacher_keys(world: World) -> Iterator[Case]:
    import json

    source = random.Random("keys of a teacher")
    paths = list(damages.key_paths(json.loads((world.teacher / "denoiser.json").read_text()), depth=3))
    source.shuffle(paths)
    for index, path in enumerate(paths[:24]):
        change = list(damages.CHANGES)[index % len(damages.CHANGES)]
        dotted = ".".join(map(str, path))
        yield _teacher("denoiser.json", f"{dotted}-{change}", damages.changed(path, change), EITHER)


def _teacher(file: str, name: str, harm: Damage, expect: Expect, *, is_humble: bool = False) -> Case:
    def play(scene: Scene) -> list[Fault]:
        teacher = scene.copy("teacher")
        harm(teacher / file)
        for path in teacher.iterdir():
            scene.guard(path)
        words = [
            "partition",
            *scene.world.recipe,
            "--set",
            f"teacher.source={teacher}",
            "--json",
            "--out",
            scene.work / "run",
        ]
        return _judged(scene, words, expect, is_humble)

    return Case("user-files", f"teacher/{file}/{name}", play)


START_FILES = (*(f"student/{file}" for file in TEACHER_FILES), "bundle.safetensors", "result.json")
"""Of a finished job from which students start. What is handed on may be missing, and so may the list of checksums."""


def _starts() -> Iterator[Case]:
    for file in START_FILES:
        needed = file.startswith("student/")
        for name, harm in damages.TYPES.items():
            spoilt = name in damages.BROKEN_CONTENT[1:] and file != "result.json"
            yield _start(file, f"type-{name}", harm, Expect((2,)) if needed or spoilt else EITHER, name == "unreadable")
        for name, harm in damages.byte_damages(random.Random(file), truncations=1, flips=2).items():
            sealed = file.endswith(".safetensors") or (needed and name.startswith("truncated"))
            yield _start(file, name, harm, Expect((2,)) if sealed else EITHER)


def _start(file: str, name: str, harm: Damage, expect: Expect, is_humble: bool = False) -> Case:
    def play(scene: Scene) -> list[Fault]:
        start = scene.folder / "start"
        (result,) = scene.world.run.glob("jobs/single-*/result")
        shutil.copytree(result, start)
        harm(start / file)
        for path in start.rglob("*"):
            scene.guard(path)
        words = ["partition", *scene.world.recipe, "--set", "rows={}", "--set", f"student.start={start}", "--json"]
        return _judged(scene, [*words, "--out", scene.work / "run"], expect, is_humble)

    return Case("user-files", f"start/{file}/{name}", play)
