"""A stage rehearsed: built and taken one step of on torch's meta device, to say what its training holds in memory.

It is the stage itself that runs, with its roles, streams and losses, on networks that have shapes and no weights; so what is
said follows whatever the stage does. Adam's moments are added, as nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from msd.conditions.partition import Partition
from msd.conditions.table import LabelConditions
from msd.data.images import ImageSet
from msd.data.pairs import PairSet
from msd.data.streams import MOST_HELD_OUT
from msd.diffusion.codec import AffineCodec
from msd.diffusion.denoiser import Denoiser, DenoiserSpec, GuidedDenoiser
from msd.diffusion.draw import Draw
from msd.networks.cost import weightless
from msd.recipe import STUDENT, TEACHER, MatchingSection, Precision, StageSection, TSMSection
from msd.stages.materials import CRITIC, DISCRIMINATOR, Materials
from msd.stages.table import STAGES
from msd.training.engine import Engine
from msd.training.ledger import META, AsDevices, Ledger, Moments
from msd.training.loop import take_turn
from msd.training.passes import stage_flops
from msd.training.roles import Network, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_TURNS = 2
"""Of a step that are rehearsed: the student's, and the critic's first. Its later ones make samples first, without a way
back, when nothing else is there yet."""
FLOAT, MOMENTS = 4, 2
"""Bytes of a float32, and how many of them Adam keeps for each parameter that it trains."""
SMALL, LARGE = 2, 3
"""Units of the batch that a step is taken with: between them lies what one unit adds. Of one alone libraries take short
cuts."""
START, AVERAGES, OPTIMISERS, DATA = "start", "averages", "optimisers", "data"
FIXED = (TEACHER, START, STUDENT, CRITIC, DISCRIMINATOR, AVERAGES, OPTIMISERS, DATA)
"""What is there throughout, where a stage has it."""
MaterialsOf = Callable[[Engine], Materials]


@dataclass(frozen=True)
class Networks:
    """Of what kind and configuration a stage's networks are."""

    kind: str
    spec: DenoiserSpec
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    critic_is_student: bool = False
    sigma_init: float = 80.0
    guidance: float = 1.0
    null_label: int | None = None
    """The scale by which the teacher is guided, and the class that stands for none."""


@dataclass(frozen=True)
class Need:
    """Bytes that a training holds when it holds most, on the device that it runs on.

    `peak` is less than the sum where gradients come as activations go.
    """

    gradients: int
    """Of the turn whose networks have most."""
    activations: int
    """The most that lives at a time beside these and what is fixed: kept for the way back, and work in between."""
    peak: int


@dataclass(frozen=True)
class Rehearsal:
    """What one stage was found to need, for any number of micro-batches."""

    stage: str
    parameters: Mapping[str, int]
    """By role, the teacher's too."""
    flops_per_update: float
    """Floating-point operations of all its steps, by the updates of what it delivers."""
    forward_flops: int
    """Of one evaluation of its largest network, for one sample."""
    batch_size: int
    fixed: Mapping[str, int]
    """Bytes that are there throughout: each network, averages, optimisers' moments, data."""
    course: _Course
    num_units: int
    """Micro-batches that the batch can be taken in at most; all of its divisors are possible."""
    held_out: int
    """Bytes of judging held-out samples, all at once, beside what is fixed."""

    def need(self, num_micro_batches: int = 1) -> Need:
        """With the batch taken in that many parts, a divisor of `num_units`."""
        activations, moving = self.course.at(self.num_units / num_micro_batches)
        activations = max(activations, self.held_out)
        if num_micro_batches > 1:  # the gradients of the parts before are there from the start
            moving = activations + self.course.gradients
        return Need(self.course.gradients, activations, sum(self.fixed.values()) + max(moving, activations))

    def fewest_parts(self, room: int) -> int | None:
        """The smallest number of micro-batches with which the peak is at most `room` bytes; None where none is."""
        divisors = (num for num in range(1, self.num_units + 1) if self.num_units % num == 0)
        return next((num for num in divisors if self.need(num).peak <= room), None)


@dataclass(frozen=True)
class _Taken:
    """Bytes beside the fixed ones after each operation of a step."""

    units: int
    live: NDArray[Any]
    gradients: NDArray[Any]


@dataclass(frozen=True)
class _Course:
    """The same for any size of the batch: at each moment a constant, and what each unit adds."""

    constant: NDArray[Any]
    growing: NDArray[Any]
    arrived: NDArray[Any]
    """Bytes of gradients; they don't grow."""
    gradients: int
    """The most of them."""

    @classmethod
    def of(cls, small: _Taken, large: _Taken) -> _Course:
        most = int(small.gradients.max())
        if len(small.live) != len(large.live):  # a library takes another way with more samples: then by the peaks alone
            small, large = (
                _Taken(one.units, one.live.max(keepdims=True), one.gradients[[one.live.argmax()]]) for one in (small, large)
            )
        growing = (large.live - small.live) / (large.units - small.units)
        return cls(small.live - growing * small.units, growing, small.gradients, most)

    def at(self, units: float) -> tuple[int, int]:
        """Most activations, and most of activations and gradients together."""
        moving = self.constant + self.growing * units
        return int((moving - self.arrived).max()), int(moving.max())


def rehearse(
    name: str, settings: StageSection, materials_of: MaterialsOf, precision: Precision = "float32", num_samples: int = 0
) -> Rehearsal:
    """Rehearse the stage `name`; `num_samples` are those that it can hold some of out (0: not known, so many).

    Raises RecipeError or WeightsError for a stage that cannot be built.
    """
    num_units = math.gcd(*settings.batch_sizes)
    small, large = (
        _Rehearsing(name, _with_units(settings, num_units, units), materials_of, precision) for units in (SMALL, LARGE)
    )
    return Rehearsal(
        stage=name,
        parameters=small.parameters(),
        flops_per_update=stage_flops(small.stage, settings.num_steps) * num_units / SMALL / settings.num_updates,
        forward_flops=max(small.stage.forward_flops().values()),
        batch_size=settings.batch_size,
        fixed=small.fixed(),
        course=_Course.of(small.step(SMALL), large.step(LARGE)),
        num_units=num_units,
        held_out=small.look(settings, num_samples),
    )


def student_materials(networks: Networks, num_pairs: int) -> MaterialsOf:
    """What a student's stages are made from, without any content: `num_pairs` pairs, an image a class."""
    # Samples stay in the model's space: no autoencoder is at hand, and it is no part of what is trained.
    spec, num = replace(networks.spec, codec=AffineCodec()), networks.spec.num_conditions
    teacher = weightless(networks.kind, networks.teacher, spec)
    if networks.guidance != 1 and networks.null_label is not None:
        teacher = GuidedDenoiser(teacher, networks.guidance, networks.null_label)
    keys = torch.arange(max(num, num_pairs)) % num
    nothing = torch.zeros(1).expand(num_pairs, *spec.noise_shape)
    pixels = torch.zeros(1, dtype=torch.uint8).expand(num, *spec.pixel_shape)
    materials = Materials(
        Engine(torch.device(META)),
        seed=0,
        teacher=teacher,
        start=weightless(networks.kind, networks.student, replace(spec, sigma_init=networks.sigma_init)),
        conditions=LabelConditions(num),
        partition=Partition.whole((1 / num,) * num),
        pairs=PairSet(nothing, keys[:num_pairs], nothing),
        images=ImageSet("images", pixels, keys[:num], num, "not stated"),
        critic="student" if networks.critic_is_student else "teacher",
    )
    return lambda engine: replace(materials, engine=engine)


class _Rehearsed(Role[Network]):
    """A role whose updates change nothing."""

    def step(self, norm: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.num_updates += 1


class _Weightless(Engine):
    def role(self, module: Network, settings: Any, num_updates: int, *, dropout: bool = False) -> Role[Network]:
        module = module.to(self.device).train(dropout)
        return _Rehearsed(module, module, settings, num_updates)


class _Rehearsing:
    """A stage on the meta device, and the ledger that was open while it was built."""

    def __init__(self, name: str, settings: Any, materials_of: MaterialsOf, precision: Precision):
        self._engine = _Weightless(torch.device(META), precision=precision)
        self._materials = materials_of(self._engine)
        with Ledger() as self._ledger, torch.device(META) if self._materials.teacher is None else nullcontext():
            self.stage = STAGES[name](settings, self._materials)
        self._built = self._ledger.live

    def parameters(self) -> dict[str, int]:
        modules = {name: role.module for name, role in self.stage.roles.items()}
        teacher = {} if self._materials.teacher is None else {TEACHER: self._materials.teacher}
        return {name: sum(one.numel() for one in module.parameters()) for name, module in (teacher | modules).items()}

    def fixed(self) -> dict[str, int]:
        given, roles = self._materials, self.stage.roles
        modules: dict[str, nn.Module | None] = {TEACHER: given.teacher, START: given.start}
        modules |= {name: role.module for name, role in roles.items()}
        found = {name: _num_bytes(module) for name, module in modules.items() if module is not None}
        found[AVERAGES] = sum(_num_bytes(role.average) for role in roles.values() if role.average is not None)
        trained = sum(parameter.numel() for role in roles.values() for parameter in role.parameters)
        found[OPTIMISERS] = FLOAT * MOMENTS * trained
        own = sum(found[name] for name in roles) + found[AVERAGES]
        return found | {DATA: max(0, self._built - own)}

    def step(self, units: int) -> _Taken:
        """The last step of the stage, when it has warmed up; its batch is of `units`."""
        stage, engine, ledger = self.stage, self._engine, self._ledger
        draw = Draw(0, stage.name, stage.num_steps - 1, device=engine.device)
        for role in stage.roles.values():
            role.activate(True)
            ledger.watch_gradients(role.parameters)
        ledger.moments, before = Moments(), ledger.live
        with ledger:
            for turn in islice(stage.turns(draw), MOST_TURNS):
                take_turn([turn], stage.roles, engine)
        return _Taken(units, np.array(ledger.moments.live) - before, np.array(ledger.moments.gradients))

    def look(self, settings: StageSection, num_samples: int) -> int:
        """The most bytes of a look at held-out samples; 0 for a stage that does not look."""
        if not isinstance(settings, TSMSection) or not settings.held_out:
            return 0
        num = min(MOST_HELD_OUT, round(settings.held_out * num_samples) if num_samples else MOST_HELD_OUT)
        most = 0
        for denoiser in (self._materials.teacher, self._materials.start):
            if denoiser is not None and num:
                with Ledger() as ledger, AsDevices(self._engine.precision), torch.no_grad():
                    _asked(denoiser, num)
                most = max([most, *ledger.moments.live])
        return most


def _asked(denoiser: Denoiser, num: int) -> Tensor:
    with torch.device(META):
        x, keys = torch.empty(num, *denoiser.spec.noise_shape), torch.empty(num, dtype=torch.long)
        return denoiser(x, torch.empty(num), keys)


def _num_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _with_units(settings: StageSection, num_units: int, units: int) -> StageSection:
    """The settings with batches of `units` of the `num_units` that they consist of."""
    changes: dict[str, Any] = {"batch_size": settings.batch_size // num_units * units}
    if isinstance(settings, MatchingSection) and settings.needs_pairs:
        regression = settings.regression
        own = {"batch_size": regression.batch_size // num_units * units, "with_replacement": True}
        changes["regression"] = regression.model_copy(update=own)
    if isinstance(settings, TSMSection):
        changes["held_out"] = 0.0  # looked at by itself: it asks the device for a number
    return settings.model_copy(update=changes)
