"""What every section of a recipe is made of: kinds of values with their ranges, and the model that refuses others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from msd.checks import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_FLOAT,
    MAX_IMAGE_SIZE,
    MAX_LOG_DEVIATION,
    MAX_SEED,
    MAX_SIGMA,
    MAX_STEPS,
    MAX_THREADS,
    MAX_WIDTH,
    MIN_SIGMA,
)
from msd.errors import RecipeError
from msd.recipe.messages import sentence


def _no_bool(value: Any) -> Any:
    """`true` where a number belongs is a mistake, which pydantic would take for 1."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


NotBool = BeforeValidator(_no_bool)
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), NotBool]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT), NotBool]
Whole = Annotated[int, Field(ge=0, le=MAX_COUNT), NotBool]
Batch = Annotated[int, Field(ge=1, le=MAX_BATCH), NotBool]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS), NotBool]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS), NotBool]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH), NotBool]
Positive = Annotated[float, Field(gt=0, le=MAX_FLOAT), NotBool]
NonNegative = Annotated[float, Field(ge=0, le=MAX_FLOAT), NotBool]
Sigma = Annotated[float, Field(ge=MIN_SIGMA, le=MAX_SIGMA), NotBool]
LogSigma = Annotated[float, Field(ge=math.log(MIN_SIGMA), le=math.log(MAX_SIGMA)), NotBool]
Deviation = Annotated[float, Field(gt=0, le=MAX_LOG_DEVIATION), NotBool]
ImageSize = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE), NotBool]
Word = Annotated[str, Field(min_length=1, max_length=60)]
FeatureNetworkWord = Annotated[str, Field(pattern="^(classifier|lite0|packaged:[a-z0-9-]+)$")]
GuidanceScale = Annotated[float, Field(ge=0, le=1000), NotBool]
Share = Annotated[float, Field(ge=0, le=1), NotBool]
Decay = Annotated[float, Field(ge=0, lt=1), NotBool]
Reduction = Annotated[float, Field(ge=0, lt=1), NotBool]


if TYPE_CHECKING:
    _Speaking = type
else:

    class _Speaking(type(BaseModel)):
        """Makes a section written in Python speak as one in a recipe does: a RecipeError of one sentence.

        A metaclass, since pydantic would call an `__init__` of ours for inner sections too, and lose where they stand.
        """

        def __call__(cls, *arguments: Any, **values: Any) -> Any:
            try:
                return super().__call__(*arguments, **values)
            except ValidationError as error:
                raise RecipeError(sentence(error, cls)) from error


class Section(BaseModel, metaclass=_Speaking):
    """Frozen, without unknown keys. Raises RecipeError naming the first value that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
