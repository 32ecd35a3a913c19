"""What a command said and how it ended, held against what is promised of every command."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from benchmarks.abuse.case import Fault
from benchmarks.abuse.process import Done

SENTENCE = re.compile(r"([A-Z]\w*(Error|Failed)|Interrupted): .*\S")
_LIBRARY = re.compile(
    r"weights_only|couldn't connect|huggingface|pydantic|'NoneType'|has no attribute|unexpected keyword argument|"
    r"positional argument|object is not|not subscriptable|unhashable|<class '",
    re.IGNORECASE,
)
"""Words by which a library's error is known: it was passed on, not translated."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Expect:
    """What a case declares."""

    codes: tuple[int, ...]
    names: tuple[str, ...] = ()
    """An error's sentence names one of these."""
    warns: tuple[str, ...] = ()
    """With exit code 0, standard error mentions one of these."""


FINE = Expect((0,))
ERROR = Expect((2,))
EITHER = Expect((0, 2))
"""An error, or exit code 0 with the right result, which whoever says EITHER checks."""
FAILED = Expect((1, 2))
"""An error, or a failed student's."""


def judge(done: Done, expect: Expect) -> list[Fault]:
    """All that the words and the code of one command break."""
    if done.hung:
        return [Fault("hang", f"no end after {done.seconds:.0f} s")]
    faults = []
    lines = done.stderr.strip().splitlines()
    if "Traceback (most recent call last)" in done.stderr + done.stdout:
        return [Fault("traceback", lines[-1] if lines else "on standard output")]
    if done.code not in expect.codes:
        said = lines[-1] if lines else "it said nothing"
        faults.append(Fault("code", f"exit code {done.code}, not {' or '.join(map(str, expect.codes))}: {said}"))
    if done.code != 0:
        faults += judge_sentence(lines, expect)
    elif expect.warns and not any(word in _flat(done.stderr) for word in expect.warns):
        faults.append(Fault("message", f"no warning that mentions {' or '.join(expect.warns)}"))
    if "--json" in done.arguments:
        faults += judge_json(done)
    return faults


def judge_sentence(lines: list[str], expect: Expect) -> list[Fault]:
    """Exactly one sentence, the last line of standard error, that names the thing."""
    sentences = [line for line in lines if SENTENCE.match(line)]
    if len(sentences) != 1:
        shown = " / ".join(lines[-3:]) or "nothing"
        return [Fault("message", f"{len(sentences)} error sentences where there should be one: {shown}")]
    sentence, faults = sentences[0], []
    if lines[-1] != sentence:
        faults.append(Fault("message", f"the sentence goes on after its line: {sentence} / {lines[-1]}"))
    if _LIBRARY.search(sentence):
        faults.append(Fault("message", f"a library's words are passed on: {sentence}"))
    if _CONTROL.search(sentence):
        faults.append(Fault("message", f"control characters are passed on: {sentence!r}"))
    if expect.names and not any(name in sentence for name in expect.names):
        faults.append(Fault("message", f"does not name {' or '.join(expect.names)}: {sentence}"))
    return faults


def judge_json(done: Done) -> list[Fault]:
    """One JSON value on standard output and nothing else; none at all is fine where the command failed."""
    if done.code != 0 and not done.stdout.strip():
        return []
    try:
        read_json(done.stdout)
    except ValueError as error:
        return [Fault("json", f"standard output is not one JSON value ({error}): {done.stdout[:80]!r}")]
    return []


def read_json(text: str) -> Any:
    """Strictly: NaN and Infinity are no JSON. Raises ValueError."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def _flat(text: str) -> str:
    """Lines that a console folded, joined again."""
    return " ".join(text.split())
