"""Conditional Gaussian mixtures with an exact denoiser: the truth that tests and the toy example are held against."""

from __future__ import annotations

from torch import Tensor

from msd.diffusion.denoiser import per_sample
from msd.diffusion.draw import Draw


class GaussianMixtureTeacher:
    """p(x0 | c) = mean over m of N(means[c, m], deviations[c, m]^2 I); call it as `denoise(x, sigma, condition)`.

    `means` is `[num_conditions, num_components, *shape]`, `deviations` `[num_conditions, num_components]` > 0. All
    components of a condition weigh the same (repeat one to weigh it more).
    """

    def __init__(self, means: Tensor, deviations: Tensor):
        self.means, self.deviations = means, deviations

    @property
    def num_conditions(self) -> int:
        return len(self.means)

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """E[x0 | x, sigma, condition]: the posterior mean of each component, weighted by its responsibility."""
        means = self.means[condition].flatten(2)  # [N, M, D]
        flat = x.flatten(1)[:, None, :].to(means.dtype)  # [N, 1, D]
        variances = self.deviations[condition] ** 2  # [N, M]
        totals = variances + per_sample(sigma**2, variances)
        dimension = means.shape[-1]
        log_likelihood = -((flat - means) ** 2).sum(-1) / (2 * totals) - dimension / 2 * totals.log()
        responsibility = log_likelihood.softmax(-1)[..., None]  # [N, M, 1]
        shrink = (variances / totals)[..., None]
        posterior = means + shrink * (flat - means)
        return (responsibility * posterior).sum(1).reshape(x.shape).to(x.dtype)

    def sample(self, condition: Tensor, draw: Draw) -> Tensor:
        """Exact draws from p(x0 | condition), one for each of a global batch of conditions `[N]`; this process's rows."""
        component = draw.mine(draw.indices(self.means.shape[1], len(condition), replacement=True))
        noise = draw.normal(len(condition), *self.means.shape[2:])
        condition = draw.mine(condition)
        centres = self.means[condition, component]
        return centres + per_sample(self.deviations[condition, component], centres) * noise
