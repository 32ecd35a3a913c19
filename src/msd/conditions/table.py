"""`Conditions`: from int64 keys, which everything below the network carries, to what the network itself is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from msd import checks
from msd.errors import ConditionError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from msd.diffusion.denoiser import Condition


class Conditions(Protocol):
    """A table with a row a key."""

    @property
    def num(self) -> int:
        """Keys are 0 to num - 1."""
        ...

    @property
    def null(self) -> Condition | None:
        """The unconditional condition, of one sample, which guidance needs; None when the teacher has none."""
        ...

    @property
    def embeddings(self) -> NDArray[Any] | None:
        """What splits look at, `[num, D]`; None when nothing is known of the keys."""
        ...

    def __getitem__(self, keys: Tensor) -> Condition:
        """What the network is given for `keys` `[N]` int64, one row a sample, on their device."""
        ...


@dataclass(frozen=True, eq=False)
class LabelConditions:
    """Class labels: a key is its own condition."""

    num: int
    embeddings: NDArray[Any] | None = None
    null: Condition | None = None

    def __post_init__(self) -> None:
        checks.whole(self.num, "the number of classes", 1, error=ConditionError)

    def __getitem__(self, keys: Tensor) -> Condition:
        return keys
