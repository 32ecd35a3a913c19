"""Pretraining: one role, one turn; a teacher learns to denoise real images (EDM loss)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from msd.diffusion.denoiser import Denoiser, DenoiserSpec, EDMParameterisation, per_sample
from msd.diffusion.draw import Draw
from msd.diffusion.noise import LogNormalLaw
from msd.errors import DataError
from msd.networks.build import build_unet, unet_config
from msd.networks.cost import forward_flops
from msd.objectives.denoising import denoising_loss
from msd.recipe import TEACHER, NetworkSection, PretrainSection
from msd.stages.materials import Materials
from msd.training.ahead import Reads
from msd.training.loop import Loss, Stage, Turn
from msd.training.passes import ALL, Pass

if TYPE_CHECKING:
    from msd.data.images import ImageSet


def foreseen_teacher(
    settings: PretrainSection, images: ImageSet, network: NetworkSection
) -> tuple[dict[str, Any], DenoiserSpec]:
    """Configuration and spec of the teacher that pretraining on `images` makes.

    Raises RecipeError when the images cannot be halved as often as the network has levels.
    """
    codec = images.codec(settings.sigma_data, network.fold)
    spec = DenoiserSpec(
        noise_shape=codec.noise_shape(images.pixel_shape),
        num_conditions=images.num_conditions,
        parameterisation=EDMParameterisation(settings.sigma_data),
        codec=codec,
        sigma_min=settings.sigma_min,
        sigma_max=settings.sigma_max,
    )
    return unet_config(spec.noise_shape, spec.num_conditions, network.model_dump()), spec


class Pretraining(Stage):
    """Role `teacher`: a fresh network, averaged."""

    name = "pretrain"
    delivers = TEACHER
    reads: Reads[tuple[Tensor, Tensor]]

    def __init__(self, settings: PretrainSection, materials: Materials):
        images, network = materials.need_images(), materials.network
        if network is None:
            raise DataError("pretraining needs a network to build; set network.")
        config, spec = foreseen_teacher(settings, images, network)
        codec = spec.codec
        # The initial weights are diffusers' own, drawn from torch's global generator: fork it so that nothing else moves.
        with torch.random.fork_rng():
            torch.manual_seed(materials.seed)
            unet = build_unet(config)
        teacher = materials.bundle.restore(TEACHER, Denoiser(unet, spec))
        engine, self._dropout = materials.engine, network.dropout > 0
        role = engine.role(teacher, settings, settings.num_updates, dropout=self._dropout)
        self.num_steps, self.batch_size = settings.num_updates, settings.batch_size
        self.roles = {TEACHER: role}
        self._teacher, self._sigma_data = role, settings.sigma_data
        self._law = LogNormalLaw(settings.log_sigma_mean, settings.log_sigma_deviation)
        self._images, self._codec = images, codec
        self.reads = Reads(self._read)

    def turns(self, draw: Draw) -> Iterator[Turn]:
        clean, labels = self.reads(draw)
        yield Turn((TEACHER,), lambda: self._loss(clean, labels, draw))

    def passes(self, step: int) -> tuple[Pass, ...]:
        return (Pass(TEACHER, self.batch_size, ALL),)

    def forward_flops(self) -> dict[str, int]:
        return {TEACHER: forward_flops(self._teacher.module)}

    def _read(self, draw: Draw) -> tuple[Tensor, Tensor]:
        index = draw.slice.of(draw.indices(len(self._images), self.batch_size, replacement=True))
        return self._codec.encode(self._images.batch(index)), self._images.labels[index]

    def _loss(self, clean: Tensor, labels: Tensor, draw: Draw) -> Loss:
        sigma = self._law.sample(self.batch_size, draw)
        noised = clean + per_sample(sigma, clean) * draw.normal(self.batch_size, *clean.shape[1:])
        with draw.inside_modules(needed=self._dropout):
            estimate = self._teacher(noised, sigma, labels)
        return Loss(denoising_loss(estimate, clean, sigma, self._sigma_data))
