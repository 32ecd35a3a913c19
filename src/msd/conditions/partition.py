"""`Partition`: which student owns which condition. Data, not code: saved, hashed, and checked wherever students meet.

torch is imported where keys are tensors only: to make, read and compare partitions must cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msd import checks
from msd.checks import MAX_COUNT
from msd.conditions.names import numbered
from msd.errors import PartitionError
from msd.files import sha256_json, write_json
from msd.reading import Kind, Stored, read_json, validated

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from msd.diffusion.draw import Draw

SCHEMA = 2
_KIND = Kind("a saved partition", "remove it and make it again with `msd partition`", PartitionError, schema=SCHEMA)


class _StoredPartition(Stored):
    method: str
    num_conditions: int
    parts: tuple[tuple[int, ...], ...]
    prior: tuple[float, ...]
    hash: str


class _PartReport(Stored):
    part: int
    conditions: tuple[int, ...]
    size: int
    prior: float
    coherence: float | None


class PartitionReport(Stored):
    """What `Partition.report` says, as a run's folder keeps it."""

    method: str
    hash: str
    num_conditions: int
    num_parts: int
    balance: float
    parts: tuple[_PartReport, ...]
    prior: tuple[float, ...] = ()
    """Of each class."""
    classes: tuple[str, ...] = ()
    """Name of each class."""


@dataclass(frozen=True)
class Partition:
    """A total, disjoint division of `num_conditions` keys (class labels) into parts, with each class's prior.

    `parts[k]` are the classes of part k, whole numbers from 0; `prior[c]` is how often class c occurs, from 0 to 1 (sums to
    1). Raises PartitionError when a part is empty, a class is in no part or in two, or the prior is not a distribution.
    """

    parts: tuple[tuple[int, ...], ...]
    prior: tuple[float, ...]
    method: str = "file"

    def __post_init__(self) -> None:
        rows = checks.items(self.parts, "parts", "lists of class numbers", error=PartitionError)
        parts = tuple(
            tuple(
                checks.whole(one, f"a class in part {index}", -MAX_COUNT, error=PartitionError)
                for one in checks.items(row, f"part {index}", "class numbers", error=PartitionError)
            )
            for index, row in enumerate(rows)
        )
        prior = tuple(
            checks.number(share, f"prior[{index}]", 0, 1 + 1e-6, error=PartitionError)
            for index, share in enumerate(checks.items(self.prior, "prior", "one number a class", error=PartitionError))
        )
        checks.instance(self.method, str, "method", "name how the partition was found", error=PartitionError)
        object.__setattr__(self, "parts", parts)  # plain numbers, whatever kind of list they came in
        object.__setattr__(self, "prior", prior)
        seen: dict[int, int] = {}
        for index, part in enumerate(self.parts):
            if not part:
                raise PartitionError(f"part {index} is empty; give it a class, or ask for fewer parts.")
            for condition in part:
                if not 0 <= condition < self.num_conditions:
                    raise PartitionError(
                        f"class {condition} in part {index} does not exist; classes are 0 to {self.num_conditions - 1}."
                    )
                if condition in seen:
                    raise PartitionError(
                        f"class {condition} is in part {seen[condition]} and in part {index}; remove it from one of them."
                    )
                seen[condition] = index
        for condition in range(self.num_conditions):
            if condition not in seen:
                raise PartitionError(f"class {condition} is in no part; list it or set rest: {len(self.parts) - 1}")
        if abs(sum(self.prior) - 1) > 1e-6:
            raise PartitionError(f"the prior sums to {sum(self.prior):.6g}; make it non-negative and sum to 1.")
        for index, part in enumerate(self.parts):
            if sum(self.prior[condition] for condition in part) == 0:
                raise PartitionError(
                    f"part {index} has prior 0, so its student would never be asked; merge it with another."
                )

    @classmethod
    def whole(cls, prior: Sequence[float]) -> Partition:
        """One part with every class: the single student."""
        shares = checks.items(prior, "prior", "one number a class", error=PartitionError)
        return cls(parts=(tuple(range(len(shares))),), prior=tuple(shares), method="whole")

    @property
    def num_conditions(self) -> int:
        return len(self.prior)

    @property
    def num_parts(self) -> int:
        return len(self.parts)

    @cached_property
    def part_prior(self) -> tuple[float, ...]:
        """How often each part is asked; sums to 1."""
        return tuple(sum(self.prior[condition] for condition in part) for part in self.parts)

    @cached_property
    def hash(self) -> str:
        """Identity of the division and its prior; how it was found does not matter."""
        return sha256_json({"parts": [sorted(part) for part in self.parts], "prior": self.prior})

    @cached_property
    def _owner(self) -> Tensor:
        import torch

        owner = torch.empty(self.num_conditions, dtype=torch.long)
        for index, part in enumerate(self.parts):
            owner[list(part)] = index
        return owner

    def assign(self, keys: Tensor | Sequence[int]) -> Tensor:
        """The part of each key `[N]`, `[N]` int64 on the CPU.

        Raises PartitionError for a key outside the partition, and for what is no list of whole class numbers: floats,
        bools, one-hot rows.
        """
        return self._owner[checks.class_numbers(keys, self.num_conditions, error=PartitionError)]

    @cached_property
    def _weights(self) -> dict[int | None, Tensor]:
        return {}

    def weights(self, part: int | None = None) -> Tensor:
        """Probability of each key within `part` (None: under the global prior), `[num_conditions]` float32, sums to 1.

        On the CPU and kept: not to be changed in place. Raises PartitionError for a part that there is not.
        """
        if part is not None:
            part = checks.whole(part, "part", 0, self.num_parts - 1, error=PartitionError)
        if part not in self._weights:
            import torch

            prior = torch.tensor(self.prior)
            if part is not None:
                prior = torch.where(self._owner == part, prior, torch.zeros_like(prior))
            self._weights[part] = prior / prior.sum()
        return self._weights[part]

    def sample(self, part: int | None, num: int, draw: Draw) -> Tensor:
        """This process's rows of `num` keys drawn from `part` by its prior (None: from the global prior), int64."""
        return draw.choice(self.weights(part), num)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "method": self.method,
            "num_conditions": self.num_conditions,
            "parts": [list(part) for part in self.parts],
            "prior": list(self.prior),
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, value: Any, *, source: str) -> Partition:
        """Rebuild and check against the stored hash. Raises PartitionError naming `source`."""
        stored = validated(value, _StoredPartition, _KIND, source=source)
        try:
            partition = cls(stored.parts, stored.prior, stored.method)
        except PartitionError as error:
            raise PartitionError(f"{source}: {error}") from error
        if stored.hash != partition.hash or stored.num_conditions != partition.num_conditions:
            raise PartitionError(f"{source} was edited: its hash no longer fits; {_KIND.remedy}.")
        return partition

    def save(self, path: str | Path) -> None:
        write_json(checks.path(path, "a partition's file", error=PartitionError), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Partition:
        """Raises PartitionError when there is none, or it is damaged or was edited."""
        path = checks.path(path, "a partition's file", error=PartitionError)
        return cls.from_json(read_json(path, _KIND), source=str(path))

    def report(self, embeddings: NDArray[Any] | None, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Sizes, priors, balance and coherence, for people and for JSON; `classes` are the names of all classes.

        Coherence of a part is the mean cosine similarity of its classes' centred `embeddings` `[num_conditions, D]` to each
        other minus that to the classes of other parts: above 0, a part's conditions are more alike than across parts. It
        is None without embeddings, for one-class parts and for a single part. Raises PartitionError for embeddings of
        another shape, or that are not finite.
        """
        if embeddings is not None:
            check_embeddings(embeddings, self.num_conditions)
        similarity = None if embeddings is None else _cosines(embeddings)
        names = list(classes) or list(numbered(self.num_conditions))
        rows = []
        for index, part in enumerate(self.parts):
            coherence = None
            if similarity is not None and len(part) > 1 and self.num_parts > 1:
                inside = list(part)
                outside = [condition for condition in range(self.num_conditions) if condition not in set(part)]
                block = similarity[inside][:, inside]
                within = (block.sum() - block.trace()) / (len(part) * (len(part) - 1))
                coherence = round(float(within - similarity[inside][:, outside].mean()), 4)
            rows.append(
                {
                    "part": index,
                    "conditions": list(part),
                    "size": len(part),
                    "prior": round(self.part_prior[index], 6),
                    "coherence": coherence,
                }
            )
        return {
            "method": self.method,
            "hash": self.hash,
            "num_conditions": self.num_conditions,
            "num_parts": self.num_parts,
            "balance": round(max(self.part_prior) / min(self.part_prior), 4),
            "parts": rows,
            "prior": [round(share, 6) for share in self.prior],
            "classes": names,
        }


def check_embeddings(embeddings: NDArray[Any], num_conditions: int) -> NDArray[Any]:
    """Class embeddings `[num_conditions, D]`, finite. Raises PartitionError."""
    import numpy as np

    is_table = isinstance(embeddings, np.ndarray) and embeddings.ndim == 2 and embeddings.dtype.kind == "f"
    if not is_table or len(embeddings) != num_conditions:
        raise PartitionError(
            f"class embeddings are {checks.shown(embeddings)}, not one row of floats for each of {num_conditions} classes; "
            "give an array of shape [num_conditions, D]."
        )
    if not np.isfinite(embeddings).all():
        raise PartitionError("class embeddings hold numbers that are not finite; check the teacher's weights.")
    return embeddings


def _cosines(embeddings: NDArray[Any]) -> NDArray[Any]:
    """Cosine similarity `[C, C]` of each two rows of `embeddings` `[C, D]`, measured from their common mean."""
    import numpy as np

    centred = embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)
    return unit @ unit.T
