"""What a diffusers UNet2DModel is made of, read from its configuration alone: widths, blocks, attention, parameters.

No torch: plans and tables of hundreds of configurations cost milliseconds. Every count is of a closed formula, which is
tested against built networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msd import checks
from msd.checks import MAX_WIDTH
from msd.errors import WeightsError

KIND = "unet2d"
"""What the folder of a UNet2DModel calls it."""
Resampling = Literal["conv", "resnet"]

DOWN_TYPES = {"DownBlock2D": False, "ResnetDownsampleBlock2D": False, "AttnDownBlock2D": True}
UP_TYPES = {"UpBlock2D": False, "ResnetUpsampleBlock2D": False, "AttnUpBlock2D": True}
"""The blocks of a level that are known here, and whether they attend."""
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "layers_per_block": 2,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
"""What diffusers takes for keys that a configuration leaves out, of those that decide a tensor's shape."""
REMEDY = "give the config.json of a UNet2DModel made of plain, residual or attention blocks"


@dataclass(frozen=True)
class Level:
    """One resolution: its channels, whether it attends on the way down and up, and what halves and doubles it."""

    width: int
    attends_down: bool
    attends_up: bool
    downsampling: Resampling
    upsampling: Resampling


@dataclass(frozen=True)
class Anatomy:
    """A U-Net in numbers; the finest level first."""

    levels: tuple[Level, ...]
    num_blocks: int
    """Residual blocks of a level on the way down; there is one more on the way up."""
    num_groups: int
    head_dim: int | None
    """Channels of a head of attention; None is one head of all."""
    mid_attends: bool
    mid_norm: bool
    """Whether the attention in the middle has a group norm."""
    has_mid: bool
    time_width: int
    size: int | None
    config: Mapping[str, Any]
    """All of the above, as diffusers takes it, with every default filled in."""

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(level.width for level in self.levels)

    @property
    def has_attention(self) -> bool:
        return self.mid_attends or any(level.attends_down or level.attends_up for level in self.levels)

    @property
    def num_modules(self) -> int:
        """Residual blocks and attentions, resampling ones included: what kernels are launched by."""
        count = 0
        for place, level in enumerate(self.levels):
            count += self.num_blocks * (1 + level.attends_down) + (self.num_blocks + 1) * (1 + level.attends_up)
            count += 2 * (place > 0)
        return count + (2 + self.mid_attends) * self.has_mid

    def resnets(self) -> Iterator[tuple[int, int]]:
        """Channels in and out of every residual block, in the order in which they run."""
        before = self.widths[0]
        for place, level in enumerate(self.levels):
            for _ in range(self.num_blocks):
                yield before, level.width
                before = level.width
            if place < len(self.levels) - 1 and level.downsampling == "resnet":
                yield level.width, level.width
        if self.has_mid:
            yield before, before
            yield before, before
        for place, level in reversed(tuple(enumerate(self.levels))):
            for block in range(self.num_blocks + 1):
                skip = self.widths[max(place - 1, 0)] if block == self.num_blocks else level.width
                yield before + skip, level.width
                before = level.width
            if place > 0 and level.upsampling == "resnet":
                yield level.width, level.width

    def num_parameters(self) -> int:
        """Of all tensors, also those that the architecture keeps fixed."""
        config, time = self.config, self.time_width
        first, last = self.widths[0], self.widths[-1]
        projections = 2 if config["resnet_time_scale_shift"] == "scale_shift" else 1
        total = _conv(config["in_channels"], first) + 2 * first + _conv(first, config["out_channels"])
        total += self._embeddings()
        for inside, outside in self.resnets():
            total += 2 * inside + _conv(inside, outside) + projections * _linear(time, outside)
            total += 2 * outside + _conv(outside, outside)
            total += _linear(inside, outside) if inside != outside else 0
        for place, level in enumerate(self.levels):
            attentions = self.num_blocks * level.attends_down + (self.num_blocks + 1) * level.attends_up
            total += attentions * self._attention(level.width, norm=True)
            total += _conv(level.width, level.width) * (level.downsampling == "conv" and place < len(self.levels) - 1)
            total += _conv(level.width, level.width) * (level.upsampling == "conv" and place > 0)
        return total + self.mid_attends * self._attention(last, norm=self.mid_norm)

    def _embeddings(self) -> int:
        config, first, time = self.config, self.widths[0], self.time_width
        kind, num_classes = config["time_embedding_type"], config["num_class_embeds"]
        entering = 2 * first if kind == "fourier" else first
        embedding = _linear(entering, time) + _linear(time, time)
        total = embedding
        if kind == "fourier":
            total += first
        elif kind == "learned":
            total += config["num_train_timesteps"] * first
        if config["class_embed_type"] == "timestep":
            total += embedding
        elif config["class_embed_type"] is None and num_classes is not None:
            total += num_classes * time
        return total

    def _attention(self, width: int, *, norm: bool) -> int:
        inner = width if self.head_dim is None else width // self.head_dim * self.head_dim
        return 3 * _linear(width, inner) + _linear(inner, width) + 2 * width * norm


def _conv(inside: int, outside: int) -> int:
    return 9 * inside * outside + outside


def _linear(inside: int, outside: int) -> int:
    return inside * outside + outside


def read_anatomy(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of the network that `config` (as in config.json) describes.

    Raises WeightsError for one that diffusers could not build, or whose parts are not known here, naming the value.
    """
    checks.instance(config, Mapping, "a network's configuration", REMEDY, error=WeightsError)
    full = {**DEFAULTS, **{key: value for key, value in config.items() if not key.startswith("_")}}
    widths = tuple(_whole(width, "a width of block_out_channels") for width in _list(full, "block_out_channels"))
    down, up = _list(full, "down_block_types"), _list(full, "up_block_types")
    if not widths or not len(widths) == len(down) == len(up):
        raise WeightsError(
            f"a network has {len(widths)} widths, {len(down)} down_block_types and {len(up)} up_block_types; "
            "give one of each a level."
        )
    for key in ("downsample_type", "upsample_type"):
        full[key] = full[key] or "conv"
    for key, known in _CHOICES.items():
        if full[key] not in known:
            raise WeightsError(f"{key} {checks.shown(full[key])} is not known here (known: {_listed(known)}); {REMEDY}.")
    for key in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups"):
        full[key] = _whole(full[key], key)
    for key in ("attention_head_dim", "attn_norm_num_groups", "time_embedding_dim", "num_class_embeds"):
        full[key] = None if full[key] is None else _whole(full[key], key)
    if full["time_embedding_type"] == "learned":
        _whole(full["num_train_timesteps"], "num_train_timesteps")
    levels = tuple(_level(full, width, *types) for width, *types in zip(widths, down, up[::-1], strict=True))
    full |= {"block_out_channels": list(widths), "down_block_types": down, "up_block_types": up}
    mid = full["mid_block_type"] is not None
    anatomy = Anatomy(
        levels=levels,
        num_blocks=full["layers_per_block"],
        num_groups=full["norm_num_groups"],
        head_dim=full["attention_head_dim"],
        mid_attends=mid and bool(full["add_attention"]),
        mid_norm=full["attn_norm_num_groups"] is not None or full["resnet_time_scale_shift"] == "default",
        has_mid=mid,
        time_width=full["time_embedding_dim"] or 4 * widths[0],
        size=_size(full["sample_size"], len(widths)),
        config=full,
    )
    _check_divisible(anatomy)
    return anatomy


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "time_embedding_type": ("positional", "fourier", "learned"),
    "mid_block_type": ("UNetMidBlock2D", None),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "class_embed_type": (None, "timestep", "identity"),
}


def _level(config: Mapping[str, Any], width: int, down: str, up: str) -> Level:
    for kind, known in ((down, DOWN_TYPES), (up, UP_TYPES)):
        if kind not in known:
            raise WeightsError(
                f"blocks of type {checks.shown(kind)} are not known here (known: {_listed(known)}); {REMEDY}."
            )
    return Level(
        width,
        DOWN_TYPES[down],
        UP_TYPES[up],
        config["downsample_type"] if DOWN_TYPES[down] else "resnet" if down.startswith("Resnet") else "conv",
        config["upsample_type"] if UP_TYPES[up] else "resnet" if up.startswith("Resnet") else "conv",
    )


def _check_divisible(anatomy: Anatomy) -> None:
    """Raises WeightsError for widths that a group norm or heads of attention cannot divide."""
    for width in anatomy.widths:
        if width % anatomy.num_groups:
            raise WeightsError(
                f"a width of {width} cannot be divided into {anatomy.num_groups} groups (norm_num_groups); give a multiple "
                "of it, or fewer groups."
            )
    groups = anatomy.config["attn_norm_num_groups"]
    if anatomy.mid_attends and groups and anatomy.widths[-1] % groups:
        raise WeightsError(
            f"a width of {anatomy.widths[-1]} cannot be divided into {groups} groups (attn_norm_num_groups); give a "
            "multiple of it, or fewer groups."
        )
    attending = [level.width for level in anatomy.levels if level.attends_down or level.attends_up]
    for width in (*attending, *([anatomy.widths[-1]] if anatomy.mid_attends else [])):
        if anatomy.head_dim and width % anatomy.head_dim:
            raise WeightsError(
                f"a width of {width} cannot be divided into heads of {anatomy.head_dim} channels (attention_head_dim); "
                "give a multiple of it, or smaller heads."
            )


def _size(value: object, num_levels: int) -> int | None:
    """Pixels of the shorter side; None where the configuration leaves it open. Raises WeightsError."""
    if value is None:
        return None
    sides = [_whole(side, "sample_size") for side in (value if isinstance(value, list | tuple) else [value])]
    for side in sides:
        if side % 2 ** (num_levels - 1):
            raise WeightsError(
                f"a size of {side} cannot be halved {num_levels - 1} times, as {num_levels} levels need; give fewer levels."
            )
    return min(sides, default=None)


def _whole(value: object, name: str) -> int:
    return checks.whole(value, name, 1, max(MAX_WIDTH, checks.MAX_BATCH), error=WeightsError)


def _list(config: Mapping[str, Any], key: str) -> list[Any]:
    if key not in config:
        raise WeightsError(f"a network's configuration has no {key}; {REMEDY}.")
    return checks.items(config[key], key, "one value a level", error=WeightsError)


def _listed(known: Any) -> str:
    return ", ".join("null" if one is None else str(one) for one in known)
