"""What a case is: a name, a group, and a play that returns what was not as promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.abuse.scene import Scene

Kind = Literal["traceback", "hang", "lost", "wrong", "leftover", "orphan", "tree", "json", "message", "code", "harness"]
"""`lost` is a file of the user's or a finished result that is gone or changed, `wrong` an exit code 0 with a wrong one."""

SECONDS = 10.0
"""After so long without an end a command hangs, unless its case trains."""


@dataclass(frozen=True)
class Fault:
    """One broken promise."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Case:
    """`play` arranges the scene, runs commands there and judges them."""

    group: str
    name: str
    play: Callable[[Scene], list[Fault]]
    is_slow: bool = False
    """Trains in fresh processes: left out of the quick sample."""

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"


@dataclass
class Outcome:
    """How one case went."""

    id: str
    group: str
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    transcript: list[str] = field(default_factory=list)
    """Every command with its code and what it said, for people."""
    skipped: str = ""
    """Why this machine cannot play the case."""

    @property
    def held(self) -> bool:
        return not self.faults

    def has(self, *kinds: Kind) -> bool:
        return any(fault.kind in kinds for fault in self.faults)


class Skipped(Exception):
    """Raised by a play that this machine has no means for."""
