"""Adversarial distribution matching: DM, and a discriminator on a denoiser's features that tells real images from fakes.

MSD's second stage (sec. 4.2), whose form is DMD2's: it goes on from the student and the critic, raw, that DM handed on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from msd.data.streams import image_stream
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.draw import Draw, derived_seed
from msd.diffusion.noise import KarrasLaw
from msd.errors import RecipeError
from msd.networks.cost import flops_of_head, flops_to_tap
from msd.networks.heads import new_head
from msd.networks.taps import Tap
from msd.objectives.adversarial import (
    accuracy,
    approximate_r1,
    carrying,
    discriminator_loss,
    generator_loss,
    mean_norm,
)
from msd.objectives.denoising import denoising_loss, unweighted_denoising_loss
from msd.objectives.dm import dm_loss
from msd.recipe import STUDENT, TEACHER, ADMSection
from msd.stages.balance import BalanceWatch
from msd.stages.matching import Batch, Fakes, Matching, Noised
from msd.stages.materials import CRITIC, DISCRIMINATOR, Materials
from msd.training.ahead import Reads
from msd.training.loop import Loss, Record, Stage, Turn
from msd.training.passes import ALL, INPUT, Pass

ADVERSARIAL, DM_PULL, GAN_PULL = f"{STUDENT}/adversarial", f"{STUDENT}/dm_gradient", f"{STUDENT}/adversarial_gradient"
FEATURES = "features"
"""The part of critic or teacher up to the tap, where work is counted."""
RATIO = f"{STUDENT}/gradient_ratio"
REAL_RIGHT, FAKE_RIGHT = f"{DISCRIMINATOR}/accuracy_real", f"{DISCRIMINATOR}/accuracy_fake"
RIGHT = f"{DISCRIMINATOR}/accuracy"
MEASURES = (ADVERSARIAL, DM_PULL, GAN_PULL, RATIO, REAL_RIGHT, FAKE_RIGHT, RIGHT)
"""What no watch ends a training for. The student's GAN loss is among them: it grows with the discriminator's certainty."""

Real = tuple[Tensor, Tensor]
"""Real images in the model's space, and their classes."""


class AdversarialMatching(Stage):
    """Roles `student` (averaged), `critic` and `discriminator`, a head on the features of critic or teacher.

    One step is a student turn, then `critic_turns` turns of critic and discriminator from one loss, the first on the same
    samples (DMD2's two time scales). Before them come `discriminator_warmup` steps of the discriminator alone. Real images
    and keys are the part's own. Raises DataError without real images of the part.
    """

    name = "adm"
    reads: Reads[tuple[Batch, tuple[Real, ...]]]

    def __init__(self, settings: ADMSection, materials: Materials):
        engine, self._settings = materials.engine, settings
        self.num_steps, self.batch_size = settings.num_steps, settings.batch_size
        self._speaks = engine.is_main
        conditions, partition, part = materials.need_part()
        self._images = image_stream(materials.need_images(), materials.need_teacher().spec, partition, part)
        module = _trainable(materials.new_student(), settings.trained_layers)
        critic_module, teacher = materials.new_critic(), materials.need_teacher()
        on_critic = settings.features == CRITIC
        tapped = critic_module if on_critic else teacher
        self._tap = Tap(tapped, settings.tap)
        shape = self._tap.shape(tapped.to(engine.device), conditions[torch.zeros(1, dtype=torch.long, device=engine.device)])
        self._feature_shape = shape
        seed = derived_seed(materials.seed, self.name, DISCRIMINATOR)
        head = materials.bundle.restore(DISCRIMINATOR, new_head(shape, critic_module, settings.head, seed))

        num_guided = settings.num_updates * settings.critic_turns
        student = engine.role(module, settings, settings.num_updates)
        critic = engine.role(critic_module, settings.critic_role, num_guided)
        self._head = engine.role(head, settings.discriminator_role, settings.discriminator_warmup + num_guided)
        self.roles = {STUDENT: student, CRITIC: critic, DISCRIMINATOR: self._head}
        self._matching = Matching(self.name, settings, materials, student, critic)
        self._seer = critic if on_critic else teacher
        self._law = KarrasLaw(settings.discriminator_sigma_low, settings.discriminator_sigma_high)
        self.reads = Reads(self._read)

    @cached_property
    def watch(self) -> BalanceWatch:
        """Also warns of a discriminator that wins, or learns nothing, for long."""
        num_warmup = self._settings.discriminator_warmup
        return BalanceWatch(self.name, RIGHT, MEASURES, num_warmup=num_warmup, speaks=self._speaks)

    def turns(self, draw: Draw) -> Iterator[Turn]:
        batch, reals = self.reads(draw)
        if self._warms_up(draw.step):
            fakes = partial(self._matching.fakes, draw, batch)
            yield Turn((DISCRIMINATOR,), lambda: self._discriminator_loss(fakes(), draw, reals[0]))
            return
        yield Turn((STUDENT,), lambda: self._student_loss(batch, draw))
        for real in reals:
            yield Turn((CRITIC, DISCRIMINATOR), partial(self._guidance_loss, draw, real))

    def passes(self, step: int) -> list[Pass]:
        settings, size = self._settings, self.batch_size
        shown = (3 if settings.r1_weight > 0 else 2) * size
        seer = CRITIC if self._seer is self.roles[CRITIC] else TEACHER
        judged = [Pass(seer, shown), Pass(DISCRIMINATOR, shown, ALL)]
        if self._warms_up(step):  # the critic is frozen: of it nothing is differentiated
            return [Pass(STUDENT, size), *judged]
        if settings.trains_critic:
            judged.append(Pass(FEATURES, shown, ALL, forward=0))
        # Frozen convolutions hand gradients on and take none; what else there is to train is next to nothing.
        found = self._matching.student_passes(ALL if settings.trained_layers == "all" else INPUT)
        found += [Pass(seer, size), Pass(FEATURES, size, INPUT, forward=0), Pass(DISCRIMINATOR, size, INPUT)]
        for turn in range(settings.critic_turns):
            found += [*self._matching.critic_passes(turn), *judged]
        return found

    def forward_flops(self) -> dict[str, int]:
        tapped = self.roles[CRITIC].module if self._seer is self.roles[CRITIC] else self._matching.teacher
        return self._matching.forward_flops() | {
            FEATURES: flops_to_tap(tapped, self._tap.name),
            DISCRIMINATOR: flops_of_head(self._head.module, self._feature_shape),
        }

    def derived(self, record: Record) -> Record:
        found = {RIGHT: (record[REAL_RIGHT] + record[FAKE_RIGHT]) / 2}
        return found | {RATIO: record[GAN_PULL] / record[DM_PULL]} if GAN_PULL in record else found

    def _warms_up(self, step: int) -> bool:
        return step < self._settings.discriminator_warmup

    def _read(self, draw: Draw) -> tuple[Batch, tuple[Real, ...]]:
        """What the student begins with, and real images for each turn of the discriminator."""
        warms_up = self._warms_up(draw.step)
        # A stream of its own, as they come from another place than noise.
        real = replace(draw, place=f"{draw.place}/real")
        num = 1 if warms_up else self._settings.critic_turns
        reals = tuple(self._images.batch(self.batch_size, real) for _ in range(num))
        return self._matching.read(draw, paired=not warms_up), reals

    def _student_loss(self, batch: Batch, draw: Draw) -> Loss:
        settings = self._settings
        fakes, regression = self._matching.student_batch(batch, draw)
        samples, direction = fakes.samples, self._matching.gradient(fakes, draw)
        matching = dm_loss(samples, direction)
        adversarial, pull = self._pull(fakes, draw)
        value = settings.weight * matching + settings.regression.weight * regression
        value = value + settings.adversarial_weight * carrying(adversarial, samples, pull)
        return Loss(
            value,
            {
                "dm": matching,
                "regression": regression,
                ADVERSARIAL: adversarial,
                # Of one sample's share of the losses, so that they do not depend on the batch's size.
                DM_PULL: settings.weight * mean_norm(direction) / direction[0].numel(),
                GAN_PULL: settings.adversarial_weight * mean_norm(pull) * len(pull),
            },
        )

    def _pull(self, fakes: Fakes, draw: Draw) -> tuple[Tensor, Tensor]:
        """The student's GAN loss and its gradient with respect to the samples, through features and head, which are frozen.

        Taken here, where the samples are a leaf: its norm is then known before anything is descended.
        """
        samples = fakes.samples.detach().requires_grad_()
        noised = self._matching.noised(samples, fakes.keys, self._law, draw)
        loss = generator_loss(self._head(self._features(noised), fakes.keys))
        (pull,) = torch.autograd.grad(loss, samples)
        return loss.detach(), pull

    def _guidance_loss(self, draw: Draw, real: Real) -> Loss:
        """The critic's denoising of the student's samples, and the discriminator's loss beside it."""
        fakes, settings = self._matching.fakes(draw), self._settings
        estimate, sigma = self._matching.critic_estimate(fakes, draw)
        if settings.critic_weighting == "edm":
            denoising = denoising_loss(estimate, fakes.samples, sigma, self._matching.sigma_data)
        else:
            denoising = unweighted_denoising_loss(estimate, fakes.samples)
        judged = self._discriminator_loss(fakes, draw, real)
        return Loss(denoising + settings.discriminator_weight * judged.value, {"denoising": denoising, **judged.parts})

    def _discriminator_loss(self, fakes: Fakes, draw: Draw, real: Real) -> Loss:
        """How well fakes and real images, as many, are told apart; each with its own class and noise of its own."""
        settings, size = self._settings, len(fakes.keys)
        clean, keys = real
        shown = [
            self._matching.noised(fakes.samples, fakes.keys, self._law, draw),
            self._matching.noised(clean, keys, self._law, draw),
        ]
        if settings.r1_weight > 0:
            # The image is moved, its noise is not: what differs in the answer is the image's doing.
            moved = settings.r1_sigma * draw.normal(self.batch_size, *clean.shape[1:])
            shown.append(replace(shown[1], samples=shown[1].samples + moved))
        # One forward for all: cheaper than several, and no layer mixes samples of a batch.
        together = Noised(*(torch.cat([getattr(one, name) for one in shown]) for name in ("samples", "sigma", "keys")))
        with torch.set_grad_enabled(settings.trains_critic):
            features = self._features(together)
        fake, genuine, *perturbed = self._head(features, together.keys).split(size)
        loss = discriminator_loss(genuine, fake)
        parts = {"adversarial": loss, "accuracy_real": accuracy(genuine, True), "accuracy_fake": accuracy(fake, False)}
        value = loss
        for logits in perturbed:
            parts["r1"] = approximate_r1(genuine, logits)
            value = value + settings.r1_weight * parts["r1"]
        return Loss(value, {f"{DISCRIMINATOR}/{name}": part for name, part in parts.items()})

    def _features(self, noised: Noised) -> Tensor:
        condition = self._matching.conditions[noised.keys]
        return self._tap(self._seer, noised.samples, noised.sigma, condition)[1]


def _trainable(student: Denoiser, layers: str) -> Denoiser:
    """`student` with the layers frozen that are not to be trained. Raises RecipeError when none would be left."""
    if layers == "no-convolutions":
        for module in student.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                module.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in student.parameters()):
            raise RecipeError("the student consists of convolutions alone, and they are frozen; set adm.trained_layers=all.")
    return student
