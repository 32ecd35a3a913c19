"""Smaller networks of the same kind: the configurations that a student can be chosen from, and the choice.

The space is small on purpose, and every dimension has a reason:

- width: the first level's channels, in steps of the group norm's groups (halved until there are NUM_STEPS steps, so that
  narrow networks have a choice too), from the teacher's down to a quarter of it;
- multipliers: the teacher's own; rounded down to powers of two (1-2-3-4 becomes 1-2-2-4); these capped at each lower power
  (1-2-2-2, 1-1-1-1);
- blocks a level: the teacher's, then fewer. They, and levels, cut the number of kernels, which width does not: a student of
  71% fewer parameters was only 23% faster at batch 1 (MSD, Table 7);
- levels: the deepest go, as long as what is left still sees MAX_COARSEST pixels a side or fewer at its coarsest;
- attention: the finest resolutions go first, the coarsest stays.

Groups are lowered to the largest common divisor where a width needs it, and where a group would be left with one channel:
that would take each channel's mean away. The size of an attention's head never changes. With the ADM U-Net of 64x64
(Dhariwal and Nichol 2021) the two sizes that the paper's percentages fit come out: 172.8M and 85.9M parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from msd import checks
from msd.errors import MsdError, RecipeError, WeightsError
from msd.networks.anatomy import KIND, Anatomy, read_anatomy

NUM_STEPS = 8
"""The first level's width in steps, at least: 8 steps of 2, 4 or 16 channels for the packaged teachers and the ADM U-Net."""
SMALLEST_WIDTH = 4
MAX_COARSEST = 16
"""Pixels a side of the coarsest level, at most, for a level to be dropped: some level has to see the whole picture."""
REACH = 0.05
"""How far from the wished cut a configuration may be: five points."""
MOST_NAMED = 3


@dataclass(frozen=True)
class Candidate:
    """A configuration that can be built, how many parameters it has, and which share of the teacher's that saves."""

    config: dict[str, Any]
    num_parameters: int
    cut: float

    @property
    def num_modules(self) -> int:
        """Residual blocks and attentions."""
        return read_anatomy(self.config).num_modules

    def __str__(self) -> str:
        anatomy = read_anatomy(self.config)
        blocks = f"{anatomy.num_blocks} block{'' if anatomy.num_blocks == 1 else 's'}"
        return f"{self.cut:.1%} ({'-'.join(map(str, anatomy.widths))} channels, {blocks})"


def check_reducible(kind: str, *, error: type[MsdError]) -> None:
    """Raises `error` for a kind of network of which no smaller one is known."""
    if kind != KIND:
        raise error(
            f"no smaller network is known of a teacher of kind {checks.shown(kind)}, only of a UNet2DModel; leave "
            "student.reduce at 0, or give such a teacher: an ADM checkpoint, or one that `msd pretrain` made."
        )


def candidates(config: Mapping[str, Any]) -> tuple[Candidate, ...]:
    """All configurations that a student of the teacher with `config` (its config.json) can have, the largest first: the
    teacher's own, then every smaller one.

    Raises WeightsError for a configuration that is no U-Net known here.
    """
    teacher = read_anatomy(config)
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    total = teacher.num_parameters()
    found = {_key(teacher): Candidate(own, total, 0.0)}
    for changes in _variations(teacher):
        try:
            anatomy = read_anatomy(own | changes)
        except WeightsError:  # a width that heads of attention cannot divide
            continue
        num = anatomy.num_parameters()
        if num < total:
            found.setdefault(_key(anatomy), Candidate(own | changes, num, 1 - num / total))
    return tuple(sorted(found.values(), key=lambda one: (-one.num_parameters, one.num_modules)))


def smaller_config(config: Mapping[str, Any], reduce: float, kind: str = KIND) -> Candidate:
    """The candidate whose share of parameters saved is nearest to `reduce`, in [0, 1); of equally near ones that with fewer
    blocks. 0 is the teacher's own configuration.

    Raises RecipeError for a reduction that no configuration comes within REACH of, naming the nearest ones, and for a `kind`
    of network of which no smaller one is known.
    """
    check_reducible(kind, error=RecipeError)
    wanted = checks.number(reduce, "the reduction", 0, 1, error=RecipeError)
    if wanted == 1:
        raise RecipeError("the reduction 1 leaves no parameter; give a share of them below 1, e.g. 0.42.")
    known = candidates(config)
    by_distance = sorted(known, key=lambda one: (abs(one.cut - wanted), one.num_modules))
    if abs(by_distance[0].cut - wanted) > REACH:
        nearest = ", ".join(map(str, sorted(by_distance[:MOST_NAMED], key=lambda one: one.cut)))
        raise RecipeError(
            f"no configuration saves about {wanted:.0%} of the teacher's {known[0].num_parameters:,} parameters; the "
            f"nearest save {nearest}: give one of these shares."
        )
    return by_distance[0]


def _variations(teacher: Anatomy) -> Iterator[dict[str, Any]]:
    """What to change of the teacher's configuration, in the order of the dimensions above."""
    attended = [place for place, level in enumerate(teacher.levels) if level.attends_down or level.attends_up]
    blocks, levels = range(teacher.num_blocks, 0, -1), _level_counts(teacher)
    for first, multipliers, num_blocks, num_levels in product(_first_widths(teacher), _multipliers(teacher), blocks, levels):
        widths = [first * multiplier for multiplier in multipliers[:num_levels]]
        if any(width.denominator != 1 for width in widths) or (shape := _shape(teacher, list(map(int, widths)))) is None:
            continue
        kept = [place for place in attended if place < num_levels]
        for start in range(max(1, len(kept))):
            types = _types(teacher, num_levels, dropped=set(kept[:start]))
            yield shape | types | {"layers_per_block": num_blocks}


def _first_widths(teacher: Anatomy) -> list[int]:
    first, step = teacher.widths[0], teacher.num_groups
    while first // step < NUM_STEPS and step % 2 == 0 and step > 2:
        step //= 2
    lowest = max(SMALLEST_WIDTH, math.ceil(first / 4))
    return [width for width in range(first, lowest - 1, -1) if width % step == 0]


def _multipliers(teacher: Anatomy) -> list[tuple[Fraction, ...]]:
    own = tuple(Fraction(width, teacher.widths[0]) for width in teacher.widths)
    powers = tuple(_power_below(multiplier) for multiplier in own)
    caps = sorted({power for power in powers if 1 <= power < max(powers)}, reverse=True)
    capped = [tuple(min(power, cap) for power in powers) for cap in caps]
    return list(dict.fromkeys([own, powers, *capped]))


def _power_below(value: Fraction) -> Fraction:
    """The largest power of two that is not above `value`."""
    power = Fraction(1)
    while power > value:
        power /= 2
    while power * 2 <= value:
        power *= 2
    return power


def _level_counts(teacher: Anatomy) -> list[int]:
    counts = [len(teacher.levels)]
    while teacher.size is not None and counts[-1] > 1 and teacher.size >> (counts[-1] - 2) <= MAX_COARSEST:
        counts.append(counts[-1] - 1)
    return counts


def _shape(teacher: Anatomy, widths: list[int]) -> dict[str, Any] | None:
    """Widths, and all that has to follow them; None where no group norm fits."""
    groups = math.gcd(teacher.num_groups, *widths)
    fewest = min(2, *(width // teacher.num_groups for width in teacher.widths))
    while min(widths) // groups < fewest and groups % 2 == 0:
        groups //= 2
    if min(widths) // groups < fewest or groups < min(2, teacher.num_groups):
        return None
    shape: dict[str, Any] = {"block_out_channels": widths, "norm_num_groups": groups}
    if (own := teacher.config["attn_norm_num_groups"]) is not None:
        shape["attn_norm_num_groups"] = math.gcd(own, groups)
    if (time := teacher.config["time_embedding_dim"]) is not None:
        shape["time_embedding_dim"] = max(1, round(time * widths[0] / teacher.widths[0]))
    return shape


def _types(teacher: Anatomy, num_levels: int, dropped: set[int]) -> dict[str, Any]:
    """The blocks of the levels that are kept; those of `dropped` without their attention."""
    down = list(teacher.config["down_block_types"])[:num_levels]
    up = list(teacher.config["up_block_types"])[::-1][:num_levels]
    for place in dropped:
        level = teacher.levels[place]
        if level.attends_down:
            down[place] = "ResnetDownsampleBlock2D" if level.downsampling == "resnet" else "DownBlock2D"
        if level.attends_up:
            up[place] = "ResnetUpsampleBlock2D" if level.upsampling == "resnet" else "UpBlock2D"
    return {"down_block_types": down, "up_block_types": up[::-1]}


def _key(anatomy: Anatomy) -> tuple[Any, ...]:
    return anatomy.levels, anatomy.num_blocks, anatomy.num_groups, anatomy.time_width
