"""What a SongUNet (DDPM++ and NCSN++) is made of: its arguments, checked, and all that follows from them. No torch here.

The two networks of Song et al. 2021 (arXiv 2011.13456) as Karras et al. 2022 (arXiv 2206.00364, appendix F) have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from msd import checks
from msd.checks import MAX_COUNT, MAX_IMAGE_SIZE, MAX_WIDTH
from msd.errors import WeightsError

KIND = "song-unet"
"""What its folder calls it."""
MAX_LEVELS, MAX_BLOCKS = 12, 64
"""More than any such network has; a larger number in a file is an attack or a slip."""
MAX_GROUPS, FEWEST_A_GROUP = 32, 4
"""Its norms have 32 groups unless that leaves fewer than 4 channels each."""
CHOICES: dict[str, tuple[Any, ...]] = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "residual"),
    "decoder_type": ("standard",),
    "resample_filter": ((1, 1), (1, 3, 3, 1)),
}
"""The variants that are known here."""
REMEDY = "give a DDPM++ or NCSN++ network as EDM has them"


class BlockShape(NamedTuple):
    """A residual block in numbers."""

    ins: int
    outs: int
    attends: bool = False


@dataclass(frozen=True)
class SongConfig:
    """The arguments under the names that they were published with; lists may come as any kind of list.

    Raises WeightsError naming the first that no such network has, or that is not known here.
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    """Of each level's width, the finest first."""
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    """`residual`: the image itself, halved and halved again, is added to the way in."""
    decoder_type: str = "standard"
    resample_filter: tuple[int, ...] = (1, 1)
    """By which halving and doubling smooth, in each direction."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "model_channels", "channel_mult_emb", "channel_mult_noise"):
            self._whole(name, MAX_WIDTH)
        self._whole("img_resolution", MAX_IMAGE_SIZE)
        self._whole("label_dim", MAX_COUNT)
        self._whole("num_blocks", MAX_BLOCKS)
        for name, high in (("channel_mult", MAX_WIDTH), ("attn_resolutions", MAX_IMAGE_SIZE), ("resample_filter", 9)):
            self._wholes(name, high)
        checks.number(self.dropout, "dropout", 0, 1, error=WeightsError)
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                listed = ", ".join(map(_shown, known))
                raise WeightsError(f"{name} {_shown(getattr(self, name))} is not known here (known: {listed}); {REMEDY}.")
        self._check_sizes()

    def _whole(self, name: str, high: int) -> None:
        object.__setattr__(self, name, checks.whole(getattr(self, name), name, 1, high, error=WeightsError))

    def _wholes(self, name: str, high: int) -> None:
        values = checks.items(getattr(self, name), name, "whole numbers", error=WeightsError)
        if len(values) > MAX_LEVELS:
            raise WeightsError(f"{name} has {len(values)} entries, at most {MAX_LEVELS} are known here; {REMEDY}.")
        whole = (checks.whole(value, f"an entry of {name}", 1, high, error=WeightsError) for value in values)
        object.__setattr__(self, name, tuple(whole))

    def _check_sizes(self) -> None:
        halvings = len(self.channel_mult) - 1
        if halvings < 0:
            raise WeightsError(f"channel_mult has no levels; {REMEDY}.")
        if self.img_resolution % 2**halvings:
            raise WeightsError(
                f"img_resolution {self.img_resolution} cannot be halved {halvings} times, as the levels of "
                f"channel_mult {_shown(self.channel_mult)} need; {REMEDY}."
            )
        if self.noise_channels % 2 or self.noise_channels < 4:
            raise WeightsError(f"{self.noise_channels} channels cannot hold sines and cosines of the noise level; {REMEDY}.")
        for channels in (max(self.widths), self.model_channels, self.embedding_channels, self.noise_channels):
            if channels > MAX_WIDTH:
                raise WeightsError(f"a layer would have {channels} channels, more than any network has; {REMEDY}.")
        for block in self._blocks():
            for channels in (block.ins, block.outs):
                groups = groups_of(channels)
                if not groups or channels % groups:
                    raise WeightsError(f"{channels} channels cannot be divided into {groups} groups of a norm; {REMEDY}.")

    @staticmethod
    def read(config: Mapping[str, Any]) -> SongConfig:
        """Of a network's `config.json`. Raises WeightsError, also for what is missing or unknown."""
        checks.instance(config, Mapping, "a network's configuration", REMEDY, error=WeightsError)
        own = {key: value for key, value in config.items() if not str(key).startswith("_")}
        known = [one.name for one in fields(SongConfig)]
        for name in known[:4]:
            if name not in own:
                raise WeightsError(f"a SongUNet's configuration has no {name}; {REMEDY}.")
        for name in own:
            if name not in known:
                raise WeightsError(f"a SongUNet has no argument {checks.shown(name)}; {REMEDY}.")
        return SongConfig(**own)

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """In a few words, for people."""
        names = {("positional", "standard", 2): "DDPM++", ("fourier", "residual", 4): "NCSN++"}
        variant = (self.embedding_type, self.encoder_type, len(self.resample_filter))
        name = names.get(variant) or f"{self.embedding_type}, {self.encoder_type}"
        blocks = f"{self.num_blocks} block{'' if self.num_blocks == 1 else 's'} a level"
        text = f"SongUNet ({name}), {'-'.join(map(str, self.widths))} channels, {blocks}"
        attended = [str(size) for size in self.sizes if size in self.attn_resolutions]
        return f"{text}, attention at {', '.join(attended)}" if attended else text

    @property
    def has_mid(self) -> bool:
        return True

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        return tuple(self.model_channels * mult for mult in self.channel_mult)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels a side of each level."""
        return tuple(self.img_resolution >> level for level in range(len(self.channel_mult)))

    @property
    def noise_channels(self) -> int:
        return self.model_channels * self.channel_mult_noise

    @property
    def embedding_channels(self) -> int:
        return self.model_channels * self.channel_mult_emb

    @property
    def num_smoothings(self) -> int:
        """How often two neighbours are averaged beside halving or doubling itself: [1, 3, 3, 1] is [1, 1] three times."""
        return len(self.resample_filter) - 2

    def way_in(self, level: int) -> list[BlockShape]:
        """A level's residual blocks before it is halved, in the order in which they run."""
        width, attends = self.widths[level], self.sizes[level] in self.attn_resolutions
        before = self.widths[level - 1] if level else self.model_channels
        return [BlockShape(width if number else before, width, attends) for number in range(self.num_blocks)]

    def way_out(self, level: int) -> list[BlockShape]:
        """A level's residual blocks before it is doubled: each also reads what the way in left, only the last attends."""
        width, last = self.widths[level], self.num_blocks
        before = self.widths[min(level + 1, len(self.widths) - 1)]
        outer = self.widths[level - 1] if level else self.model_channels
        attends = self.sizes[level] in self.attn_resolutions
        return [
            BlockShape(
                (width if number else before) + (outer if number == last else width), width, attends and number == last
            )
            for number in range(last + 1)
        ]

    def aside(self, level: int) -> tuple[int, int] | None:
        """Channels in and out of what adds the halved image after `level`, where there is such a thing."""
        if self.encoder_type == "standard" or level == len(self.widths) - 1:
            return None
        return self.widths[level - 1] if level else self.in_channels, self.widths[level]

    def _blocks(self) -> Iterator[BlockShape]:
        for level in range(len(self.widths)):
            yield from self.way_in(level)
            yield from self.way_out(level)

    def num_parameters(self) -> int:
        """Of all tensors, also those that the architecture keeps fixed; the augmentation labels' are left out."""
        noise, embedding, deepest = self.noise_channels, self.embedding_channels, self.widths[-1]
        total = self.label_dim * noise + _linear(noise, embedding) + _linear(embedding, embedding)
        total += noise // 2 * (self.embedding_type == "fourier")
        total += _conv(self.in_channels, self.model_channels)
        total += 2 * self.widths[0] + _conv(self.widths[0], self.out_channels)
        total += sum(self._of_block(block, resamples=False) for block in self._blocks())
        total += self._of_block(BlockShape(deepest, deepest, True), resamples=False)
        total += self._of_block(BlockShape(deepest, deepest), resamples=False)
        for level, width in enumerate(self.widths):
            num_resampling = (level > 0) + (level < len(self.widths) - 1)
            total += num_resampling * self._of_block(BlockShape(width, width), resamples=True)
            total += _conv(*aside) if (aside := self.aside(level)) else 0
        return total

    def _of_block(self, block: BlockShape, *, resamples: bool) -> int:
        ins, outs, attends = block
        total = 2 * ins + _conv(ins, outs) + _linear(self.embedding_channels, outs) + 2 * outs + _conv(outs, outs)
        total += _linear(ins, outs) if ins != outs or resamples else 0
        return total + (2 * outs + _linear(outs, 3 * outs) + _linear(outs, outs) if attends else 0)


def groups_of(channels: int) -> int:
    """Groups of a norm over so many channels."""
    return min(MAX_GROUPS, channels // FEWEST_A_GROUP)


def _conv(inside: int, outside: int) -> int:
    return 9 * inside * outside + outside


def _linear(inside: int, outside: int) -> int:
    return inside * outside + outside


def _shown(value: Any) -> str:
    return checks.shown(list(value) if isinstance(value, tuple) else value)
