"""A pipeline's autoencoder: read from diffusers' folder, and what its latents are as a codec."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from msd.checks import shown
from msd.errors import WeightsError
from msd.networks.autoencoder import Autoencoder, VAECodec
from msd.networks.facts import CONFIG
from msd.reading import Kind, read_object
from msd.teachers.model_weights import read_weights

REMEDY = "give the pipeline's folder as it was published"
_KIND = Kind("an autoencoder's configuration", REMEDY, WeightsError)
CLASS = "AutoencoderKL"


def foreign_autoencoder(folder: Path) -> tuple[Autoencoder, VAECodec]:
    """The AutoencoderKL in a folder of diffusers', and the codec that it is.

    Raises WeightsError for another kind, for weights that do not fit, and where it does not say how its latents are scaled:
    a wrong scale would give a teacher that is wrong everywhere.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    path = folder / CONFIG
    config = read_object(path, dict[str, Any], _KIND)
    if config.get("_class_name") != CLASS:
        raise WeightsError(f"{path} is of a {shown(config.get('_class_name'))}; only an {CLASS} is known as an autoencoder.")
    own = {key: value for key, value in config.items() if not key.startswith("_")}
    known = inspect.signature(AutoencoderKL.__init__).parameters
    if odd := sorted(own.keys() - set(known)):
        raise WeightsError(f"{path} has {shown(odd[0])}, which an {CLASS} of the diffusers here does not know; {REMEDY}.")
    if own.get("scaling_factor") is None:
        raise WeightsError(
            f"{path} does not say how its latents are scaled (scaling_factor); add it as its diffusion model was trained, "
            "e.g. 0.18215 for Stable Diffusion 1, 2 and DiT."
        )
    if own.get("latents_mean") is not None or own.get("latents_std") is not None:
        raise WeightsError(
            f"{path} scales each channel of its latents (latents_mean, latents_std), which is not known here."
        )
    found = Autoencoder(own, read_weights(folder))
    found.model(str(folder))  # its weights are all there, and fit
    full = {name: one.default for name, one in known.items() if one.default is not inspect.Parameter.empty} | own
    codec = VAECodec(
        sha256=found.digest(),
        channels=full["latent_channels"],
        factor=2 ** (len(full["block_out_channels"]) - 1),
        scale=full["scaling_factor"],
        shift=full["shift_factor"] or 0.0,
        pixels=full["out_channels"],
    )
    return found, codec
