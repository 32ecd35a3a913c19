"""Names of classes: how they are written, found again and shown. Keys stay numbers, so no name decides a result.

`classes` is one name a class, in the order of their numbers. A class that nobody named is called by its number.
"""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from msd import checks
from msd.errors import ConditionError, MsdError
from msd.reading import fitted

NAME_LENGTH = 60
"""Letters of a name that a sentence quotes at most."""
MOST_LISTED = 8
"""Names that a sentence lists where nothing is near the one that was given."""
UNEVEN = 1.5
"""The most frequent class over the least frequent one, from which on it is worth a word."""


def numbered(num: int) -> tuple[str, ...]:
    """The names of `num` classes that nobody named: their numbers."""
    return tuple(map(str, range(num)))


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether each class is called by its own number, which is no news to anybody."""
    return tuple(classes) == numbered(len(classes))


def printable(name: str) -> str:
    """A name without what steers a terminal or breaks a line; letters of every alphabet, and what joins them, stay."""
    return " ".join("".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in name).split())


def split_names(text: str, option: str = "--labels", *, error: type[MsdError] = ConditionError) -> list[str]:
    """The names in a list with commas, as spreadsheets write it: `cat,dog`, and `"a, b",dog` for a name with a comma.

    Spaces after a comma don't count. Raises `error` for quotes that don't close, and for a list of nothing.
    """
    try:
        rows = list(csv.reader([text], strict=True, skipinitialspace=True))
    except csv.Error as cause:
        raise error(
            f"{option} {checks.shown(text)} is not a list of names ({cause}); write e.g. {option} cat,dog, or "
            f"{option} '\"a, b\",dog' where a name has a comma."
        ) from cause
    if not any(rows):
        raise error(f"{option} names nothing; write e.g. {option} cat,dog, or leave it out for every class.")
    return rows[0]


def join_names(names: Iterable[str]) -> str:
    """A list that `split_names` reads as these names."""
    return ",".join(quoted(name) for name in names)


def quoted(name: str) -> str:
    """A name as it stands in a list of names."""
    if name and name == name.strip() and not re.search(r'[,"\r\n]', name):
        return name
    return '"' + name.replace('"', '""') + '"'


def number_of(name: str, classes: tuple[str, ...], where: str = "", *, error: type[MsdError] = ConditionError) -> int:
    """The number of the class called `name`: exactly so, else in another Unicode form or with spaces around, else the number
    that `name` writes (which may be no class). `where` is added to the sentence.

    Raises `error` for an unknown name, with the nearest, and for one that several classes have.
    """
    exact, alike = _by_name(classes)
    found = exact.get(name) or alike.get(_alike(name)) or ()
    if len(found) > 1:
        several = " and ".join(map(str, found[:3]))
        raise error(f"{_shown(name)} is the name of class {several}{where}; give the number instead.")
    if found:
        return found[0]
    if re.fullmatch(r"[+-]?[0-9]{1,100}", name.strip()):
        return int(name)
    raise error(f"there is no class {_shown(name)}{where}; {_advice(name, classes)}")


def with_numbers(labels: Any, classes: tuple[str, ...]) -> Any:
    """`labels` with every name in them replaced by its class's number; without names, as they are. Raises ConditionError."""
    if not isinstance(labels, list | tuple):
        if getattr(getattr(labels, "dtype", None), "kind", None) != "U" or labels.ndim != 1:
            return labels  # numbers, or nothing that could hold names: for `checks.class_numbers` to say
        labels = labels.tolist()
    if not any(isinstance(label, str) for label in labels):
        return labels
    return [number_of(label, classes) if isinstance(label, str) else label for label in labels]


@lru_cache(maxsize=32)
def _by_name(classes: tuple[str, ...]) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Numbers of the classes that have a name exactly, and of those whose name is the same in another Unicode form."""
    exact: dict[str, tuple[int, ...]] = {}
    alike: dict[str, tuple[int, ...]] = {}
    for number, name in enumerate(classes):
        exact[name] = (*exact.get(name, ()), number)
        alike[_alike(name)] = (*alike.get(_alike(name), ()), number)
    return exact, alike


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip()


def _advice(name: str, classes: Sequence[str]) -> str:
    """The names that were probably meant, as `--labels` takes them, or what there is."""
    folded: dict[str, list[str]] = {}
    for known in classes:
        folded.setdefault(_alike(known).casefold(), []).append(known)
    wanted = _alike(name).casefold()
    near = [wanted] if wanted in folded else []
    near += [known for known in folded if wanted and known.startswith(wanted) and known != wanted]
    near += [known for known in difflib.get_close_matches(wanted, folded, n=3, cutoff=0.5) if known not in near]
    meant = [one for known in near for one in folded[known]][:3]
    if meant:
        return f"did you mean {' or '.join(_listed(one) for one in meant)}?"
    numbers = f"number from 0 to {len(classes) - 1}"
    if are_numbers(classes):
        return f"give a {numbers}."
    listed = ", ".join(_listed(one) for one in classes[:MOST_LISTED])
    more = f" and {len(classes) - MOST_LISTED} more" if len(classes) > MOST_LISTED else ""
    return f"choose one of {listed}{more}, or a {numbers}."


def _listed(name: str) -> str:
    return fitted(quoted(name), NAME_LENGTH)


def _shown(name: str) -> str:
    return fitted(repr(name), NAME_LENGTH)


def extremes(prior: Sequence[float]) -> tuple[int, int] | None:
    """The rarest and the commonest class; None where all are about as frequent, or nothing is known."""
    rarest = min(range(len(prior)), key=prior.__getitem__, default=0)
    commonest = max(range(len(prior)), key=prior.__getitem__, default=0)
    return None if not prior or prior[commonest] < UNEVEN * prior[rarest] else (rarest, commonest)


def unevenness(prior: Sequence[float], classes: Sequence[str]) -> str | None:
    """How much the frequencies of classes differ, in words; None where they are about even, or not known."""
    ends = extremes(prior)
    if ends is None or len(classes) != len(prior):
        return None
    shown = (f"{fitted(classes[one], NAME_LENGTH)} ({share(prior[one])})" for one in ends)
    return f"classes differ in how often they occur: from {' to '.join(shown)}"


def share(value: float) -> str:
    """A probability as a percentage that is never rounded to nothing."""
    percent = 100 * value
    return "0%" if percent == 0 else "<0.1%" if percent < 0.1 else f"{percent:.1f}%" if percent < 10 else f"{percent:.0f}%"
