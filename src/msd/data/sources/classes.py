"""Which classes there are, and in what order: a pure function of the labels found, what the source says and the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msd.data.sources.source import Label, normal
from msd.errors import DataError
from msd.reading import fitted

LONGEST_NAME = 60


def ordered(
    counts: Mapping[Label, int], declared: Sequence[str] | None, wanted: Sequence[str] | None, source: str
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """The class names in order, and the number of every label in `counts` (how often each occurs).

    Numbers stay what they are. Names that are all whole numbers come in their order, others by code points. `declared` are
    the source's own names, `wanted` the recipe's (`data.classes`): names for the numbers, or an order for the names. A class
    without images is refused by name, unless `wanted` lists it. Raises DataError.
    """
    wanted = tuple(map(normal, wanted)) if wanted else None
    labels: Mapping[Label, int] = counts
    if all(isinstance(label, int) for label in labels):
        names, index = _of_numbers([int(label) for label in labels], wanted or declared, source)
    else:
        named = {str(label) for label in labels}
        names, index = _of_names(named, declared or (), wanted, source)
        index = {label: index[str(label)] for label in labels}
    empty = [name for number, name in enumerate(names) if number not in set(index.values())]
    if empty and not wanted:
        raise DataError(
            f"{source} has no images of {_list(empty)}; take what announces the class away, number without gaps from 0, or "
            "name all classes in data.classes to keep it."
        )
    _check(names, source)
    if len(set(index.values())) < 2:
        raise DataError(f"{source} has images of one class only ({names[next(iter(index.values()))]}); give two or more.")
    return names, index


def _of_numbers(numbers: list[int], names: Sequence[str] | None, source: str) -> tuple[tuple[str, ...], dict[Label, int]]:
    low, high = min(numbers), max(numbers)
    if low < 0:
        raise DataError(f"{source} has the label {low}; number the classes from 0.")
    if names is None:
        gap = next(number for number in range(high + 2) if number not in set(numbers))
        if gap <= high:
            raise DataError(
                f"{source} has labels up to {high} and no image of class {gap}; number without gaps from 0, or name all "
                "classes in data.classes."
            )
        names = [str(number) for number in range(high + 1)]
    if high >= len(names):
        raise DataError(f"{source} has the label {high} and names for {len(names)} classes; name all in data.classes.")
    return tuple(names), {number: number for number in numbers}


def _of_names(
    found: set[str], declared: Sequence[str], wanted: tuple[str, ...] | None, source: str
) -> tuple[tuple[str, ...], dict[Label, int]]:
    everything = found | set(declared)
    if wanted is None:
        names = in_order(everything)
        return names, {name: number for number, name in enumerate(names)}
    if everything <= set(wanted):
        return wanted, {name: wanted.index(name) for name in found}
    if all(map(_is_whole, everything)) and len({int(name) for name in everything}) == len(everything):
        high = max(int(name) for name in everything)
        if high >= len(wanted):
            raise DataError(f"{source} has the class {high} and data.classes {len(wanted)} names; name all of them.")
        return wanted, {name: int(name) for name in found}
    strange = in_order(everything - set(wanted))
    raise DataError(f"{source} has {_list(strange)}, which data.classes does not name; add it there.")


def in_order(names: set[str]) -> tuple[str, ...]:
    """Whole numbers by size if all are, else by code points."""
    if all(map(_is_whole, names)):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _is_whole(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _check(names: Sequence[str], source: str) -> None:
    """Raises DataError for names that tables, files or a command line could not tell apart or show."""
    seen: dict[str, str] = {}
    for name in names:
        shown = fitted(repr(name), 80)
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise DataError(f"{source} has a class named {shown}; rename it to at most {LONGEST_NAME} plain characters.")
        other = seen.setdefault(name.casefold(), name)
        if other is not name:
            how = "are the same" if other == name else "differ only by case, so that some file systems take them for one"
            raise DataError(f"{source} has the classes {other!r} and {shown}, which {how}; rename one of them.")


def _list(names: Sequence[str]) -> str:
    few = ", ".join(fitted(repr(name), 80) for name in names[:3])
    return f"class {few}" if len(names) <= 3 else f"class {few} and {len(names) - 3} more"
