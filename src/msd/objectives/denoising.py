"""Weighted x0-regression: pretraining, the critic, and (with the teacher's output as target) teacher score matching."""

from __future__ import annotations

from torch import Tensor

from msd.diffusion.denoiser import per_sample


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(sigma) = 1/sigma^2 + 1/sigma_data^2 = 1/c_out^2 (Karras et al. 2022, Table 1), so all levels start equal."""
    return sigma**-2 + sigma_data**-2


def denoising_loss(estimate: Tensor, target: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """Mean of lambda(sigma) * (estimate - target)^2 over all elements; a scalar.

    `estimate` is D(target + sigma n), `[N, ...]`; the target is not differentiated through. DMD eq. 6 for the critic, whose
    targets are the student's outputs.
    """
    return (per_sample(edm_weight(sigma, sigma_data), estimate) * (estimate - target.detach()) ** 2).mean()


def unweighted_denoising_loss(estimate: Tensor, target: Tensor) -> Tensor:
    """Mean of (estimate - target)^2 over all elements, `[N, ...]` each; a scalar. FastGen's critic: no level is favoured, so
    the high ones, where estimates are far off, weigh most."""
    return ((estimate - target.detach()) ** 2).mean()
