"""Pretraining: one role, one turn; a teacher learns to denoise real images (EDM loss)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from msd.data.images import ImageSet
from msd.diffusion.denoiser import Denoiser, DenoiserSpec, EDMParameterisation, per_sample
from msd.diffusion.draw import Draw
from msd.diffusion.noise import LogNormalLaw
from msd.networks.build import build_unet, unet_config
from msd.objectives.denoising import denoising_loss
from msd.recipe import Recipe, RoleSection
from msd.training.engine import Engine
from msd.training.loop import Loss, Turn
from msd.training.roles import Role, RoleSpec


class Pretraining:
    """Role `teacher`: a fresh network, averaged."""

    name = "pretrain"

    def __init__(self, recipe: Recipe, images: ImageSet, engine: Engine):
        settings = recipe.pretrain
        spec = DenoiserSpec(
            noise_shape=images.pixel_shape,
            num_conditions=images.num_conditions,
            parameterisation=EDMParameterisation(settings.sigma_data),
            codec=images.codec(settings.sigma_data),
            sigma_min=settings.sigma_min,
            sigma_max=settings.sigma_max,
        )
        # The initial weights are diffusers' own, drawn from torch's global generator: fork it so that nothing else moves.
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            network = build_unet(unet_config(spec.noise_shape, spec.num_conditions, recipe.network.model_dump()))
        self.teacher = Denoiser(network, spec).to(engine.device)
        self.num_steps = settings.num_updates
        self.roles = {
            "teacher": Role(
                self.teacher,
                RoleSpec(
                    num_updates=settings.num_updates,
                    **{name: getattr(settings, name) for name in RoleSection.model_fields},
                ),
            )
        }
        self._batch_size = settings.batch_size
        self._sigma_data = settings.sigma_data
        self._law = LogNormalLaw(settings.log_sigma_mean, settings.log_sigma_deviation)
        self._samples = spec.codec.encode(images.pixels).to(engine.device)
        self._labels = images.labels.to(engine.device)

    def turns(self, generator: torch.Generator) -> Iterator[Turn]:
        yield Turn("teacher", lambda: self._loss(generator))

    def _loss(self, generator: torch.Generator) -> Loss:
        device = generator.device
        index = torch.randint(len(self._samples), (self._batch_size,), generator=generator, device=device)
        clean = self._samples[index]
        seed = int(torch.randint(2**62, (1,), generator=generator, device=device))
        sigma = self._law.sample(self._batch_size, Draw(seed, self.name, device=device))
        noise = torch.randn(clean.shape, generator=generator, device=device)
        estimate = self.teacher(clean + per_sample(sigma, clean) * noise, sigma, self._labels[index])
        return Loss(denoising_loss(estimate, clean, sigma, self._sigma_data))
