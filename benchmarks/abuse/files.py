"""Every file of a real run, damaged by type, by key and by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from benchmarks.abuse import damage as damages
from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.damage import Damage, Path_
from benchmarks.abuse.judge import Expect, judge
from benchmarks.abuse.roles import ROLES, Role
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.tree import differences, snapshot
from benchmarks.abuse.verbs import VERBS
from benchmarks.abuse.world import World

Extent = Literal["gone", "odd", "broken", "edited"]
"""`gone`: it is not there. `odd`: no regular file lies there. `broken`: a file that nobody could take for what it should be.
`edited`: one that may pass for it, and may even say the same."""


def expectation(role: Role, verb: str, extent: Extent) -> Expect:
    """What is promised of `verb` when the file of `role` is damaged to that extent."""
    codes, is_maker = VERBS[verb].codes, verb in role.makers
    if role.nature == "books":
        allowed: tuple[int, ...] = (0,)
    elif extent == "edited" or role.nature == "index" or (is_maker and extent == "odd"):
        allowed = (0, *codes)
    else:
        allowed = (0,) if is_maker else codes
    if role.name == "checkpoint" and is_maker:
        allowed = (0, *codes)  # where none is left whole, the sentence says which folder to remove
    if role.name == "recipe" and verb == "distill" and extent == "gone":
        allowed = (0, *codes)  # nothing says any more that the folder is a run's
    if role.name == "row-cohort" and extent == "gone":
        allowed = (0, *codes)  # a row that was not made yet
    warned = (
        extent in ("odd", "broken")
        and is_maker
        and role.name not in ("plan", "partition", "partition-report", "log", "page")
    )
    said = _mentions(role)
    return Expect(allowed, names=said if extent in ("odd", "broken") else (), warns=said if warned else ())


def _mentions(role: Role) -> tuple[str, ...]:
    """The file, or the job or folder that it belongs to."""
    file = role.pattern.rpartition("/")[2].replace("*", "")
    jobs = ("student-0", "student-1") if "student-" in role.pattern else ("pairs",) if "pairs-" in role.pattern else ()
    folder = ("/cohort",) if role.pattern.startswith("cohort/") else ("/run ",) if role.name == "recipe" else ()
    return (file.split("-")[0] if file.startswith("step-") else file, *jobs, *folder)


def _case(group: str, name: str, role: Role, verb: str, harm: Damage, extent: Extent, *, is_humble: bool = False) -> Case:
    def play(scene: Scene) -> list[Fault]:
        run = scene.finished() if role.base == "run" else scene.copy(role.base)
        scene.keep(scene.folder / "victim.txt")
        path = role.find(run)
        harm(path)
        harmed, before = path.relative_to(run).as_posix(), snapshot(run)
        done = scene.run(*VERBS[verb].command(scene, run), seconds=VERBS[verb].seconds, is_humble=is_humble)
        faults = judge(done, expectation(role, verb, extent))
        if done.code == 0:
            return faults + VERBS[verb].wrong(scene, run, done)
        return faults + [
            fault for fault in differences(before, snapshot(run), _excuse(harmed, verb)) if fault.kind == "lost"
        ]

    return Case(group, f"{role.name}/{name}/{verb}", play)


def _excuse(harmed: str, verb: str):
    """What a command that fails may have changed all the same: the damaged file, and books of work that it had begun."""
    rewritten = ("plan.json", "partition-report.json", "partition.json", "job.json", "recipe.json", "records.jsonl", ".pt")

    def excused(path: str) -> bool:
        return path == harmed or "checkpoints" in path or (verb in ("distill", "pairs") and path.endswith(rewritten))

    return excused


def by_type(world: World) -> Iterator[Case]:
    for role in ROLES:
        for index, (name, harm) in enumerate(damages.TYPES.items()):
            broken = "broken" if name in damages.BROKEN_CONTENT else "odd"
            extent: Extent = "gone" if name in ("missing", "link-to-nothing") else broken
            if name in ("empty", "too-large") and role.name in ("log", "records", "halted-records"):
                extent = "edited"  # no whole line: as if it had just been begun
            for verb in _pick(role, index):
                yield _case("files-type", name, role, verb, harm, extent, is_humble=name == "unreadable")


def _pick(role: Role, index: int) -> list[str]:
    """One verb in turn; a second where a maker and a reader differ."""
    chosen = [role.verbs[index % len(role.verbs)]]
    if role.makers and role.readers and index % 3 == 0:
        chosen.append(role.readers[index % len(role.readers)])
    return list(dict.fromkeys(chosen))


def by_byte(world: World) -> Iterator[Case]:
    for role in ROLES:
        source = random.Random(f"bytes of {role.name}")
        for index, (name, harm) in enumerate(damages.byte_damages(source, truncations=2, flips=2).items()):
            tells = not role.is_json and role.name not in ("log", "page")
            extent: Extent = (
                "broken" if tells or (name.startswith("truncated") and role.pattern.endswith(".json")) else "edited"
            )
            verb = role.verbs[index % len(role.verbs)]
            yield _case("files-byte", name, role, verb, harm, extent)


def by_key(world: World) -> Iterator[Case]:
    for role in ROLES:
        if role.is_json:
            yield from _whole(role)
            yield from _keys(role, world)
            yield from _escapes(role, world)


def _whole(role: Role) -> Iterator[Case]:
    names = [name for name in damages.WHOLE if role.name not in _NO_SCHEMA or "schema" not in name]
    for index, name in enumerate(names[ROLES.index(role) % 2 :: 2]):
        # A line of curves is read as far as it goes; a teacher's configuration has no schema.
        extent: Extent = "broken" if name in damages.BREAKING and not role.pattern.endswith("jsonl") else "edited"
        verb = role.verbs[index % len(role.verbs)]
        yield _case("files-key", name, role, verb, damages.rewritten(damages.WHOLE[name]), extent)


_NO_SCHEMA = (
    "timings",
    "status",
    "halted-status",
    "records",
    "halted-records",
    "partition-report",
    "checkpoints",
    "history",
)
_NUM_KEYS = 6


def _value(role: Role, world: World) -> object:
    text = role.find(world.folder / role.base).read_text()
    return json.loads(text.splitlines()[0] if role.pattern.endswith(".jsonl") else text)


def _keys(role: Role, world: World) -> Iterator[Case]:
    """Every change at some key, and every key with some change, as far as the number goes."""
    source = random.Random(f"keys of {role.name}")
    paths, changes = list(damages.key_paths(_value(role, world))), list(damages.CHANGES)
    source.shuffle(paths)
    paths.sort(key=len)
    for index in range(max(_NUM_KEYS, min(len(paths), 8))):
        path, change = paths[index % len(paths)], changes[index % len(changes)]
        verb = role.verbs[source.randrange(len(role.verbs))]
        yield _case("files-key", f"{_dotted(path)}-{change}", role, verb, damages.changed(path, change), "edited")


FILE_KEYS = ("folder", "file", "source", "name", "pairs", "jobs", "teacher", "start")


def _escapes(role: Role, world: World) -> Iterator[Case]:
    """Every string that names a file names another: a value, or a key of a table of files."""
    value, number = _value(role, world), 0
    paths = list(damages.key_paths(value))
    named = [
        path for path in paths if path[-1] in FILE_KEYS or path[-2:-1] in [(key,) for key in ("needs", "jobs", "folder")]
    ]
    tables = [path for path in paths if path[-2:-1] in [("files",), ("shards",)]]
    for path in [*named[:3], *tables[:1]]:
        for escape in damages.ESCAPES[number % 3 :: 3]:
            verb = role.verbs[number % len(role.verbs)]
            name = f"{_dotted(path)}-escapes-{damages.ESCAPES.index(escape)}"
            yield _case("files-key", name, role, verb, _escape(path, escape, is_key=path in tables), "edited")
            number += 1


def _escape(path: Path_, escape: str, *, is_key: bool) -> Damage:
    def harm(file: Path) -> None:
        place = next(parent for parent in file.parents if (parent / "victim.txt").exists())
        name = escape.replace("{place}", str(place))
        if is_key:
            damages.renamed(path, name)(file)
            return
        value = json.loads(file.read_text())
        inner = damages.get(value, path[:-1])
        inner[path[-1]] = name if isinstance(inner[path[-1]], str) else [name]
        file.write_text(json.dumps(value))

    return harm


def _dotted(path: Path_) -> str:
    return ".".join(str(step)[:24] for step in path)
