"""Teacher score matching: a student that is no copy of the teacher learns to denoise as it does, before it is distilled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msd.data.streams import SampleStream, image_stream, pair_stream
from msd.diffusion.denoiser import per_sample
from msd.diffusion.draw import Draw
from msd.diffusion.noise import LogNormalLaw
from msd.networks.cost import forward_flops
from msd.objectives.denoising import denoising_loss
from msd.recipe import STUDENT, TEACHER, TSMSection
from msd.stages.materials import Materials
from msd.training.ahead import Reads
from msd.training.loop import Loss, Stage, Turn
from msd.training.passes import ALL, Pass

HELD_OUT = "held_out"
"""The loss on samples that no update sees, in the records of the steps that look at it."""


class TeacherMatching(Stage):
    """Role `student` (averaged), one turn a step: its denoiser towards the teacher's, at all noise levels (MSD, eq. 8).

    It ends on a plateau of the loss on held-out samples, noised once and for all. The critic is not handed on: what follows
    the student's outputs has none to follow yet.
    """

    name = "tsm"
    reads: Reads[tuple[Tensor, Tensor]]

    def __init__(self, settings: TSMSection, materials: Materials):
        engine, self._settings, self._teacher = materials.engine, settings, materials.need_teacher()
        self.conditions, partition, part = materials.need_part()
        self.num_steps, self.batch_size = settings.num_updates, settings.batch_size
        self.roles = {STUDENT: engine.role(materials.new_student(), settings, settings.num_updates)}
        self._student, self._law = self.roles[STUDENT], LogNormalLaw(settings.log_sigma_mean, settings.log_sigma_deviation)
        if settings.samples == "pairs":
            self._stream = pair_stream(materials.need_pairs(self.name), partition, part, settings.held_out)
        else:
            images = materials.need_images()
            self._stream = image_stream(images, self._teacher.spec, partition, part, settings.held_out)
        self._device, self._sigma_data = engine.device, self._teacher.spec.sigma_data
        self._held_out = self._noise_once(self._stream, materials.seed)
        self._best, self._stale = math.inf, 0
        self._looked: int | None = None
        self.reads = Reads(self._read)

    def turns(self, draw: Draw) -> Iterator[Turn]:
        clean, keys = self.reads(draw)
        yield Turn((STUDENT,), lambda: self._loss(clean, keys, draw))

    def passes(self, step: int) -> list[Pass]:
        found = [Pass(TEACHER, self.batch_size), Pass(STUDENT, self.batch_size, ALL)]
        if self._held_out is not None and step % self._settings.look_every == 0:
            num = len(self._held_out[0])
            found.append(Pass(STUDENT, num))
            if step == 0:
                found.append(Pass(TEACHER, num))  # once and for all, before the first step
        return found

    def forward_flops(self) -> dict[str, int]:
        return {STUDENT: forward_flops(self._student.module), TEACHER: forward_flops(self._teacher)}

    def finished(self, step: int) -> bool:
        return self._stale >= self._settings.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "stale": self._stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._stale = float(state["best"]), int(state["stale"])

    def _read(self, draw: Draw) -> tuple[Tensor, Tensor]:
        # A stream of its own, as samples come from another place than noise.
        return self._stream.batch(self.batch_size, replace(draw, place=f"{draw.place}/samples"))

    def _loss(self, clean: Tensor, keys: Tensor, draw: Draw) -> Loss:
        # Once a step, for however many micro-batches.
        due = draw.step % self._settings.look_every == 0 and self._looked != draw.step
        looked = self._look(draw.step) if due else {}
        sigma = self._law.sample(self.batch_size, draw)
        noised = clean + per_sample(sigma, clean) * draw.normal(self.batch_size, *clean.shape[1:])
        condition = self.conditions[keys]
        with torch.no_grad():
            target = self._teacher(noised, sigma, condition)
        return Loss(denoising_loss(self._student(noised, sigma, condition), target, sigma, self._sigma_data), looked)

    @torch.no_grad()
    def _noise_once(self, stream: SampleStream, seed: int) -> tuple[torch.Tensor, ...] | None:
        """Held-out samples noised, their levels and keys, and the teacher's answer: what every look compares with."""
        clean, keys = (one.to(self._device) for one in stream.held_out())
        if not len(keys):
            return None
        draw = Draw(seed, f"{self.name} held out", device=self._device)
        sigma = self._law.sample(len(keys), draw)
        noised = clean + per_sample(sigma, clean) * draw.normal(len(keys), *clean.shape[1:])
        return noised, sigma, keys, self._teacher(noised, sigma, self.conditions[keys])

    @torch.no_grad()
    def _look(self, step: int) -> dict[str, torch.Tensor]:
        """The held-out loss of the average, which is what would be delivered; waits for the device."""
        self._looked = step
        if self._held_out is None:
            return {}
        noised, sigma, keys, target = self._held_out
        network = self._student.result()
        loss = denoising_loss(network(noised, sigma, self.conditions[keys]), target, sigma, self._sigma_data)
        improved = float(loss) < self._best * (1 - self._settings.improvement)
        self._stale = 0 if improved else self._stale + 1
        self._best = min(self._best, float(loss))
        return {HELD_OUT: loss}
