"""How a student of another configuration begins: with slices of its teacher's weights, or with random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from msd import checks
from msd.diffusion.denoiser import Denoiser
from msd.errors import WeightsError
from msd.networks.adapter import adapter_of
from msd.networks.anatomy import Anatomy, read_anatomy
from msd.networks.build import LabelledUNet
from msd.networks.channels import NOTHING, frequency_map, magnitude, strongest, take, widened
from msd.networks.kinds import BUILDERS
from msd.networks.shrink import check_reducible
from msd.networks.wiring import IMAGE, Part, Stream, wiring

ALIKE = (
    "sample_size",
    "in_channels",
    "out_channels",
    "center_input_sample",
    "time_embedding_type",
    "freq_shift",
    "flip_sin_to_cos",
    "act_fn",
    "resnet_time_scale_shift",
    "mid_block_type",
    "class_embed_type",
    "num_class_embeds",
    "num_train_timesteps",
)
"""What two networks must have in common for the weights of one to mean anything in the other."""
REMEDY = "give a configuration that `msd shrink` makes of this teacher, or start at random"


def fresh(teacher: Denoiser, config: Mapping[str, Any], seed: int) -> Denoiser:
    """A randomly initialised student of `config`, used as `teacher` is (its spec); in evaluation mode, to be trained.

    The same seed gives the same weights, and no one else's random numbers change. Raises WeightsError for a configuration
    that cannot be built.
    """
    seed = checks.seed(seed, error=WeightsError)
    kind = adapter_of(teacher).kind
    own = dict(config)
    if kind == LabelledUNet.kind:
        own = {key: value for key, value in read_anatomy(config).config.items() if key in config}
    # The initial weights are diffusers' own, drawn from torch's global generator: fork it so that nothing else moves.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BUILDERS[kind](own)
    return Denoiser(network, teacher.spec).to(next(teacher.parameters()).device).eval()


def inherit(teacher: Denoiser, config: Mapping[str, Any]) -> Denoiser:
    """A student of `config` whose weights are those of the teacher's channels that matter most (`networks.channels`), with
    the blocks and levels that it has not skipped; the same configuration gives an exact copy.

    Every stream has one order of channels, so what was added together stays so. Where levels were dropped, the middle passes
    on what it gets and the way up does not read it yet: both learn. Raises WeightsError for a configuration that is no
    smaller one of the same kind, and for a kind of which no smaller one is known.
    """
    network = adapter_of(teacher)
    check_reducible(network.kind, error=WeightsError)
    model = network.model
    old, new = read_anatomy(dict(model.config)), read_anatomy(config)
    _check_related(old, new, {**dict(model.config), **old.config}, {**dict(model.config), **new.config, **config})
    student = fresh(teacher, config, seed=0)
    with torch.no_grad():
        _Slicing(old, new, dict(model.state_dict()), dict(adapter_of(student).model.state_dict())).fill()
    return student


def _check_related(old: Anatomy, new: Anatomy, old_config: Mapping[str, Any], new_config: Mapping[str, Any]) -> None:
    def refuse(what: str) -> None:
        raise WeightsError(f"nothing can be inherited: {what}; {REMEDY}.")

    for key in ALIKE:
        if old_config.get(key) != new_config.get(key):
            refuse(f"{key} is {checks.shown(new_config.get(key))} and the teacher's {checks.shown(old_config.get(key))}")
    if len(new.levels) > len(old.levels):
        refuse(f"the configuration has {len(new.levels)} levels and the teacher {len(old.levels)}")
    if new.num_blocks > old.num_blocks:
        refuse(f"the configuration has {new.num_blocks} blocks a level and the teacher {old.num_blocks}")
    for place, (mine, theirs) in enumerate(zip(new.levels, old.levels, strict=False)):
        if mine.width > theirs.width:
            refuse(f"level {place} has {mine.width} channels and the teacher's {theirs.width}")
        if mine.attends_down > theirs.attends_down or mine.attends_up > theirs.attends_up:
            refuse(f"level {place} has attention and the teacher's has none")
        for key in ("downsampling", "upsampling"):
            if getattr(mine, key) != getattr(theirs, key):
                refuse(f"level {place} has {key} by {getattr(mine, key)} and the teacher's by {getattr(theirs, key)}")
    if new.mid_attends > old.mid_attends:
        refuse("the middle has attention and the teacher's has none")
    if new.has_attention and new.head_dim != old.head_dim:
        refuse(f"heads have {new.head_dim} channels and the teacher's {old.head_dim}")
    if new.time_width > old.time_width:
        refuse(f"the embedding of time has {new.time_width} channels and the teacher's {old.time_width}")


class _Slicing:
    """Fills a student's tensors, in place, with the teacher's."""

    def __init__(self, old: Anatomy, new: Anatomy, source: dict[str, Tensor], target: dict[str, Tensor]):
        self.old, self.new, self.source, self.target = old, new, source, target
        self._scores = self._stream_scores()
        self._time = strongest(magnitude(self._time_touches()), new.time_width, 1)

    def fill(self) -> None:
        self._embeddings()
        self._quiet_middle()
        for part in wiring(self.new, self.old):
            reads, writes = torch.cat([*self._read(part)]), self._channels(part.writes)
            {"conv": self._conv, "norm": self._norm, "resnet": self._resnet, "attention": self._attention}[part.kind](
                part, reads, writes
            )

    def _touching(self) -> Iterator[tuple[Stream, Tensor, int]]:
        """Every weight that writes to or reads from a stream of the teacher's, with the dimension that is the stream's."""
        for part in wiring(self.old, self.old):
            writers, readers = _ENDS[part.kind]
            for name in writers:
                if (weight := self.source.get(f"{part.source}.{name}")) is not None:
                    yield part.writes, weight, 0
            for name in readers:
                weight = self.source.get(f"{part.source}.{name}")
                for stream, piece in zip(part.reads, self._pieces(part, weight), strict=True) if weight is not None else ():
                    yield stream, piece, 1

    def _pieces(self, part: Part, weight: Tensor) -> tuple[Tensor, ...]:
        if part.reads == (IMAGE,):
            return (weight,)
        return weight.split([self.old.widths[level] for _, level in part.reads], 1)

    def _stream_scores(self) -> dict[Stream, Tensor]:
        touches: dict[Stream, list[tuple[Tensor, int]]] = {}
        for stream, weight, dimension in self._touching():
            if stream != IMAGE:
                touches.setdefault(self._root(stream), []).append((weight, dimension))
        return {stream: magnitude(weights) for stream, weights in touches.items()}

    def _root(self, stream: Stream) -> Stream:
        """Levels of one width follow each other without a convolution in between: one stream, one order."""
        side, level = stream
        while side == "down" and level > 0 and self.old.widths[level] == self.old.widths[level - 1]:
            level -= 1
        return side, level

    def _channels(self, stream: Stream) -> Tensor:
        """The teacher's channel for each of the student's in a stream."""
        side, level = stream
        if side == "image":
            return torch.arange(0)  # all of them: see `_conv`
        if side == "lost":
            return torch.full((self.new.widths[level],), NOTHING)
        return strongest(self._scores[self._root(stream)], self.new.widths[level], self.new.num_groups)

    def _read(self, part: Part) -> Iterator[Tensor]:
        """The channels of all that a part reads, numbered as the teacher's concatenation is."""
        offset = 0
        for side, level in part.reads:
            channels = self._channels((side, level))
            yield torch.where(channels == NOTHING, channels, channels + offset)
            # In place of a dropped level's output the teacher reads that, of the next level's width.
            offset += self.old.widths[level + (side == "lost")]

    def _set(self, name: str, value: Tensor) -> None:
        self.target[name].copy_(value)

    def _conv(self, part: Part, reads: Tensor, writes: Tensor) -> None:
        weight, bias = self.source[f"{part.source}.weight"], self.source[f"{part.source}.bias"]
        weight = weight if part.reads == (IMAGE,) else take(weight, 1, reads)
        every = part.writes == IMAGE
        self._set(f"{part.name}.weight", weight if every else take(weight, 0, writes))
        self._set(f"{part.name}.bias", bias if every else take(bias, 0, writes))

    def _norm(self, part: Part, reads: Tensor, writes: Tensor, name: str = "") -> None:
        self._set(f"{part.name}{name}.weight", take(self.source[f"{part.source}{name}.weight"], 0, reads, missing=1.0))
        self._set(f"{part.name}{name}.bias", take(self.source[f"{part.source}{name}.bias"], 0, reads))

    def _linear(self, part: Part, name: str, rows: Tensor, columns: Tensor) -> None:
        """A layer's rows and columns: of a linear one, or of a convolution."""
        self._set(f"{part.name}.{name}.weight", take(take(self.source[f"{part.source}.{name}.weight"], 0, rows), 1, columns))
        self._set(f"{part.name}.{name}.bias", take(self.source[f"{part.source}.{name}.bias"], 0, rows))

    def _resnet(self, part: Part, reads: Tensor, writes: Tensor) -> None:
        entering, leaving = self.source[f"{part.source}.conv1.weight"], self.source[f"{part.source}.conv2.weight"]
        num, old_num = len(writes), len(entering)
        # Between its two convolutions a block has channels of its own.
        inside = strongest(magnitude([(entering, 0), (leaving, 1)]), num, self.new.num_groups)
        twice = self.new.config["resnet_time_scale_shift"] == "scale_shift"
        self._norm(part, reads, writes, ".norm1")
        self._linear(part, "conv1", inside, reads)
        self._linear(part, "time_emb_proj", torch.cat([inside, inside + old_num]) if twice else inside, self._time)
        self._norm(part, inside, writes, ".norm2")
        self._linear(part, "conv2", writes, inside)
        if f"{part.name}.conv_shortcut.weight" not in self.target:
            return
        if f"{part.source}.conv_shortcut.weight" in self.source:
            self._linear(part, "conv_shortcut", writes, reads)
        else:  # the teacher passes its input on unchanged
            same = (writes[:, None] == reads[None, :]).float()
            self._set(f"{part.name}.conv_shortcut.weight", same[:, :, None, None])
            self._set(f"{part.name}.conv_shortcut.bias", torch.zeros(num))

    def _attention(self, part: Part, reads: Tensor, writes: Tensor) -> None:
        size = self.old.head_dim or 1
        names = ("to_q", "to_k", "to_v")
        touches = [(self.source[f"{part.source}.{name}.weight"], 0) for name in names]
        scores = magnitude([*touches, (self.source[f"{part.source}.to_out.0.weight"], 1)])
        heads = scores.reshape(-1, size).sum(1)
        kept = widened(strongest(heads, len(self.target[f"{part.name}.to_q.weight"]) // size, 1), size)
        if f"{part.name}.group_norm.weight" in self.target:
            self._norm(part, reads, writes, ".group_norm")
        for name in names:
            self._linear(part, name, kept, reads)
        self._linear(part, "to_out.0", writes, kept)

    def _quiet_middle(self) -> None:
        """In place of a dropped level: a middle that passes its input on, whose layers learn."""
        if len(self.new.levels) == len(self.old.levels):
            return
        for name, value in self.target.items():
            if name.startswith("mid_block.") and (".conv2." in name or ".to_out." in name):
                value.zero_()

    def _time_touches(self) -> list[tuple[Tensor, int]]:
        touches = [(self.source["time_embedding.linear_2.weight"], 0)]
        touches += [(value, 1) for name, value in self.source.items() if name.endswith("time_emb_proj.weight")]
        if "class_embedding.weight" in self.source:
            touches.append((self.source["class_embedding.weight"], 1))
        return touches

    def _embeddings(self) -> None:
        """Time, and what the class adds to it."""
        columns = self._time_columns()
        for name in ("time_embedding", "class_embedding"):
            if f"{name}.linear_1.weight" not in self.target:
                continue
            entering, leaving = self.source[f"{name}.linear_1.weight"], self.source[f"{name}.linear_2.weight"]
            inside = strongest(magnitude([(entering, 0), (leaving, 1)]), self.new.time_width, 1)
            part = Part("conv", name, name, (), IMAGE)
            self._set(f"{name}.linear_1.weight", columns(take(entering, 0, inside)))
            self._set(f"{name}.linear_1.bias", take(self.source[f"{name}.linear_1.bias"], 0, inside))
            self._linear(part, "linear_2", self._time, inside)
        if "class_embedding.weight" in self.target:
            self._set("class_embedding.weight", take(self.source["class_embedding.weight"], 1, self._time))

    def _time_columns(self) -> Callable[[Tensor], Tensor]:
        """How to read the student's features of time with weights `[N, features]` that read the teacher's."""
        width, smaller = self.old.widths[0], self.new.widths[0]
        if width == smaller:
            if "time_proj.weight" in self.target:
                self._set("time_proj.weight", self.source["time_proj.weight"])
            return lambda weight: weight
        if self.new.config["time_embedding_type"] == "positional":
            mapped = frequency_map(width, smaller, float(self.new.config.get("freq_shift") or 0))
            return lambda weight: weight @ mapped.to(weight)
        halves = 2 if self.new.config["time_embedding_type"] == "fourier" else 1
        entering = self.source["time_embedding.linear_1.weight"]
        kept = strongest(magnitude([(piece, 1) for piece in entering.chunk(halves, 1)]), smaller, 1)
        table = self.source["time_proj.weight"]  # one row of frequencies, or a row for each moment
        self._set("time_proj.weight", take(table, table.ndim - 1, kept))
        columns = torch.cat([kept + half * width for half in range(halves)])
        return lambda weight: take(weight, 1, columns)


_ENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "conv": (("weight",), ("weight",)),
    "norm": ((), ()),
    "resnet": (("conv2.weight", "conv_shortcut.weight"), ("conv1.weight", "conv_shortcut.weight")),
    "attention": (("to_out.0.weight",), ("to_q.weight", "to_k.weight", "to_v.weight")),
}
"""The weights of a part that write to its stream, and those that read from what it reads."""
