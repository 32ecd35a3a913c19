"""Ways to divide classes into parts. Each is a function from a `SplitRequest` to a list of parts; the table names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from msd import checks
from msd.checks import MAX_COUNT
from msd.conditions.names import NAME_LENGTH, are_numbers, number_of, numbered
from msd.conditions.partition import Partition, check_embeddings
from msd.errors import PartitionError
from msd.reading import Kind, Stored, fitted, validated

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parts = list[list[int]]


def no_embeddings() -> None:
    """For conditions that nothing is known of beyond their keys."""


@dataclass(frozen=True)
class SplitRequest:
    """What a split may look at: the number of classes and parts, a seed, class embeddings, the user's file, class names.

    Embeddings are read when asked for, since most splits never ask and not every teacher has them.
    """

    num_conditions: int
    num_parts: int
    seed: int = 0
    embeddings: Callable[[], NDArray[Any] | None] = no_embeddings
    """Gives `[num_conditions, D]`, one row a class, or None; needed by balanced-kmeans."""
    file: str | Path | None = None
    classes: tuple[str, ...] = ()
    """Name of each class, by which a file may call it; their numbers where none are given."""

    def __post_init__(self) -> None:
        """Raises PartitionError; whether classes can be split into so many parts is for `make_partition` to say."""
        checks.whole(self.num_conditions, "num_conditions", 1, error=PartitionError)
        checks.whole(self.num_parts, "num_parts", -MAX_COUNT, error=PartitionError)
        checks.seed(self.seed, "partition.seed", error=PartitionError)
        if self.file is not None:
            object.__setattr__(self, "file", checks.path(self.file, "partition.file", error=PartitionError))
        object.__setattr__(self, "classes", tuple(self.classes) or numbered(self.num_conditions))
        if len(self.classes) != self.num_conditions:
            raise PartitionError(f"there are {len(self.classes)} names for {self.num_conditions} classes; give one a class.")


def contiguous(request: SplitRequest) -> Parts:
    """Consecutive blocks of class labels, sizes differing by at most one (the paper's choice for ImageNet)."""
    import numpy as np

    return [block.tolist() for block in np.array_split(np.arange(request.num_conditions), request.num_parts)]


def random(request: SplitRequest) -> Parts:
    """A seeded shuffle cut into blocks: the control that shows what similarity within a part is worth."""
    import numpy as np

    order = np.random.default_rng(request.seed).permutation(request.num_conditions)
    return [sorted(block.tolist()) for block in np.array_split(order, request.num_parts)]


def balanced_kmeans(request: SplitRequest) -> Parts:
    """k-means on class embeddings with equal parts: each class is matched to a slot of a centre at least total distance.

    Sizes differ by at most one. Alternates scipy's optimal assignment with recomputed centres until nothing moves.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    embeddings = request.embeddings()
    if embeddings is None:
        raise PartitionError("balanced-kmeans needs class embeddings and this teacher has none; use contiguous or file.")
    points = check_embeddings(embeddings, request.num_conditions).astype(np.float64)
    points = points - points.mean(0)
    points /= np.linalg.norm(points, axis=1, keepdims=True).clip(1e-12)
    centres = KMeans(request.num_parts, random_state=request.seed % 2**32).fit(points).cluster_centers_
    small, num_large = divmod(request.num_conditions, request.num_parts)
    owner = np.full(request.num_conditions, -1)
    for _ in range(100):
        # Every centre has `small` slots; one more each if the classes don't divide evenly, where only `num_large` of
        # these extra slots may be filled: dummy rows at zero cost occupy the others.
        slots = np.repeat(np.arange(request.num_parts), small)
        extra = np.arange(request.num_parts) if num_large else np.empty(0, int)
        columns = np.concatenate([slots, extra])
        cost = ((points[:, None] - centres[columns]) ** 2).sum(-1)
        num_dummies = len(columns) - request.num_conditions
        dummies = np.concatenate([np.full((num_dummies, len(slots)), 1e9), np.zeros((num_dummies, len(extra)))], 1)
        rows, chosen = linear_sum_assignment(np.concatenate([cost, dummies]))
        found = columns[chosen[rows < request.num_conditions]]
        if (found == owner).all():
            break
        owner = found
        centres = np.stack([points[owner == index].mean(0) for index in range(request.num_parts)])
    return [np.flatnonzero(owner == index).tolist() for index in range(request.num_parts)]


_KIND = Kind(
    "a division into parts",
    "write `parts: [[0, 1], [2, 3]]` (numbers or names of classes) and optionally `rest: 1`",
    PartitionError,
    missing="check partition.file",
)


def _check_class(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("should be a class's number or name (a name that YAML takes for yes or no goes in quotes)")
    if not isinstance(value, int | str):
        raise ValueError("should be a class's number or name (a name that YAML takes for something else goes in quotes)")
    return value


class _Division(Stored):
    parts: tuple[tuple[Annotated[Any, AfterValidator(_check_class)], ...], ...]
    rest: int | None = None


def from_file(request: SplitRequest) -> Parts:
    """The user's YAML: `parts:` (lists of classes) and optionally `rest:`, the part that takes all unlisted ones.

    A class is a number or a name; a text is a name before it is a number.
    """
    from msd.reading_yaml import read_yaml

    path = request.file
    if path is None:
        raise PartitionError("method file needs the path of a YAML file; set partition.file.")
    path = Path(path)
    division = validated(read_yaml(path, _KIND), _Division, _KIND, source=str(path))
    parts = [_numbers(part, f" (part {index} in {path})", request) for index, part in enumerate(division.parts)]
    rest = division.rest
    if rest is not None:
        if not 0 <= rest < len(parts):
            raise PartitionError(f"rest: {rest} in {path} names no part; parts are 0 to {len(parts) - 1}.")
        listed = {condition for part in parts for condition in part}
        parts[rest] += [condition for condition in range(request.num_conditions) if condition not in listed]
    if not are_numbers(request.classes):
        _check_named(parts, request.classes)
    return parts


def _check_named(parts: Parts, classes: Sequence[str]) -> None:
    """Says by name what `Partition` would say by number. Raises PartitionError for a class in two parts or in none."""
    owner: dict[int, int] = {}
    for index, part in enumerate(parts):
        for one in part:
            if 0 <= one < len(classes) and owner.setdefault(one, index) != index:
                name = fitted(repr(classes[one]), NAME_LENGTH)
                raise PartitionError(
                    f"class {name} is in part {owner[one]} and in part {index}; remove it from one of them."
                )
    for one in range(len(classes)):
        if one not in owner:
            name = fitted(repr(classes[one]), NAME_LENGTH)
            raise PartitionError(f"class {name} is in no part; list it or set rest: {len(parts) - 1}.")


def _numbers(part: Sequence[int | str], where: str, request: SplitRequest) -> list[int]:
    """Raises PartitionError for a name that no class has."""
    return [one if isinstance(one, int) else number_of(one, request.classes, where, error=PartitionError) for one in part]


SPLITS: dict[str, Callable[[SplitRequest], Parts]] = {
    "contiguous": contiguous,
    "random": random,
    "balanced-kmeans": balanced_kmeans,
    "file": from_file,
}


def make_partition(method: str, request: SplitRequest, prior: tuple[float, ...]) -> Partition:
    """Divide by `method` (a key of SPLITS). Raises PartitionError, e.g. for more parts than classes."""
    checks.choice(method, SPLITS, "split", error=PartitionError)
    checks.instance(request, SplitRequest, "request", "give a SplitRequest", error=PartitionError)
    shares = checks.items(prior, "prior", "one number a class", error=PartitionError)
    if len(shares) != request.num_conditions:
        raise PartitionError(f"the prior has {len(shares)} values for {request.num_conditions} classes; give one a class.")
    if method != "file" and not 1 <= request.num_parts <= request.num_conditions:
        raise PartitionError(
            f"{request.num_conditions} classes cannot be split into {request.num_parts} parts; "
            f"set partition.num_parts between 1 and {request.num_conditions}."
        )
    parts = SPLITS[method](request)
    return Partition(parts=tuple(tuple(part) for part in parts), prior=tuple(shares), method=method)
