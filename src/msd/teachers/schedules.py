"""What a diffusers scheduler's configuration says of the network it was trained with: parameterisation and noise levels.

A scheduler is also a sampler; how it samples is nothing that we take over, only which noise the network knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msd.checks import shown
from msd.diffusion.denoiser import EDMParameterisation, FlowParameterisation, Parameterisation, VPParameterisation
from msd.errors import MsdError, WeightsError
from msd.reading import clause, reason

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""What diffusers calls a network's answer, and what we do."""
LOWEST, HIGHEST = 0.002, 160.0
"""Noise levels that a teacher is asked for at least and at most, where its schedule goes further: below, noise is less than
a grey level of 8 bits; above, the data is less than a hundredth of the sample, and steps spent there are lost."""
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
CLIPPING = ("clip_sample", "thresholding")


@dataclass(frozen=True)
class Schedule:
    """How a network is to be asked, and the noise levels that it knows."""

    parameterisation: Parameterisation
    sigma_min: float
    sigma_max: float
    learned_variance: bool
    """Whether half of the network's answer is a variance."""
    doubts: tuple[str, ...] = ()


def read_schedule(config: Mapping[str, Any], source: str) -> Schedule:
    """The schedule that a scheduler's configuration (from `source`, for errors) stands for.

    Raises WeightsError for a scheduler, a prediction or a schedule of noise that is not known here, naming it.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in SCHEDULERS:
        known = ", ".join(SCHEDULERS)
        raise WeightsError(f"{source} is of a {shown(name)}, which is not known here (known: {known}).")
    try:
        return SCHEDULERS[name](_complete(name, config), source)
    except MsdError as error:
        if str(error).startswith(source):
            raise
        raise WeightsError(f"{source}: {clause(error)}; give the scheduler's configuration as it was published.") from error


def _complete(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what it leaves out as the named class has it."""
    from diffusers import schedulers

    arguments = inspect.signature(getattr(schedulers, name).__init__).parameters.values()
    defaults = {one.name: one.default for one in arguments if one.default is not inspect.Parameter.empty}
    return defaults | {key: value for key, value in config.items() if not key.startswith("_")}


def _prediction(config: Mapping[str, Any], source: str, known: Mapping[str, str]) -> str:
    found = config.get("prediction_type", "epsilon")
    if not isinstance(found, str) or found not in known:
        raise WeightsError(
            f"{source} has prediction_type {shown(found)}, which is not known of its kind here (known: {', '.join(known)})."
        )
    return known[found]


def _variance_preserving(config: Mapping[str, Any], source: str) -> Schedule:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    prediction = _prediction(config, source, PREDICTIONS)
    if odd := next((key for key in ("use_flow_sigmas",) if config.get(key)), None):
        raise WeightsError(f"{source} sets {odd}, for a network of another kind than its schedule; it is not known here.")
    betas = {key: config[key] for key in BETAS if key in config}
    num = betas.get("num_train_timesteps")
    if type(num) is not int or not 2 <= num <= 100_000:
        raise WeightsError(f"{source} has num_train_timesteps {shown(num)}, not a whole number from 2 to 100000.")
    try:
        # One formula for all of these schedulers, diffusers' own.
        values = DDPMScheduler(**betas).alphas_cumprod.double().tolist()
    except Exception as error:  # whatever diffusers makes of values that nobody has foreseen
        told = ", ".join(f"{key} {shown(value)}" for key, value in betas.items() if key != "trained_betas")
        raise WeightsError(f"{source} describes no schedule of noise ({told}: {reason(error)}).") from error
    doubts = []
    if values[-1] <= 0 or config.get("rescale_betas_zero_snr"):
        # Noise without any data has no noise level in our scaling; the step before it has.
        values = values[:-1]
        doubts.append("its last step is noise alone (zero-terminal SNR); it is asked from the step before")
    parameterisation = VPParameterisation(prediction, tuple(values))  # pyright: ignore[reportArgumentType]
    levels = [((1 - value) / value) ** 0.5 for value in (values[0], values[-1])]
    if clipping := next((key for key in CLIPPING if config.get(key)), None):
        doubts.append(f"its scheduler limits images while it samples ({clipping}); the solvers here do not")
    learned = str(config.get("variance_type") or "").startswith("learned")
    return Schedule(parameterisation, max(levels[0], LOWEST), min(levels[1], HIGHEST), learned, tuple(doubts))


def _edm(config: Mapping[str, Any], source: str) -> Schedule:
    _prediction(config, source, {"epsilon": "eps"})
    levels = [config["sigma_min"], config["sigma_max"], config["sigma_data"]]
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not one > 0 for one in levels):
        raise WeightsError(f"{source} has noise levels {shown(levels)} (sigma_min, sigma_max, sigma_data), not above 0.")
    low, high, data = map(float, levels)
    return Schedule(EDMParameterisation(data), low, high, learned_variance=False)


def _flow(config: Mapping[str, Any], source: str) -> Schedule:
    if config.get("invert_sigmas"):
        raise WeightsError(f"{source} sets invert_sigmas, which turns time around; that is not known here.")
    num = config["num_train_timesteps"]
    if isinstance(num, bool) or not isinstance(num, int | float) or not num > 0:
        raise WeightsError(f"{source} has num_train_timesteps {shown(num)}, not a number above 0.")
    return Schedule(FlowParameterisation(float(num)), LOWEST, HIGHEST, learned_variance=False)


_OF_VARIANCE_PRESERVING = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
)
SCHEDULERS: dict[str, Callable[[Mapping[str, Any], str], Schedule]] = {
    **dict.fromkeys(_OF_VARIANCE_PRESERVING, _variance_preserving),
    "EDMEulerScheduler": _edm,
    "EDMDPMSolverMultistepScheduler": _edm,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "FlowMatchHeunDiscreteScheduler": _flow,
}
"""By its class, what a scheduler's configuration means."""
