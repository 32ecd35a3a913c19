"""Conditional Gaussian mixtures with an exact denoiser: the truth that tests and the toy example are held against."""

from __future__ import annotations

from torch import Tensor

from msd import checks
from msd.diffusion.denoiser import check_inputs, per_sample, unknown_class
from msd.diffusion.draw import Draw
from msd.errors import ConditionError


class GaussianMixtureTeacher:
    """p(x0 | c) = mean over m of N(means[c, m], deviations[c, m]^2 I); call it as `denoise(x, sigma, condition)`.

    `means` is `[num_conditions, num_components, *shape]`, `deviations` `[num_conditions, num_components]` > 0. All
    components of a condition weigh the same (repeat one to weigh it more). Raises ConditionError for other shapes, for
    numbers that are not finite, and, when called, for conditions that it does not have.
    """

    def __init__(self, means: Tensor, deviations: Tensor):
        for name, value in (("means", means), ("deviations", deviations)):
            if not isinstance(value, Tensor) or not value.is_floating_point() or not bool(value.isfinite().all()):
                raise ConditionError(f"{name} {checks.shown(value)} are not finite floats; give a float tensor.")
        if means.ndim < 3 or 0 in means.shape or deviations.shape != means.shape[:2] or not bool((deviations > 0).all()):
            raise ConditionError(
                f"means have shape {tuple(means.shape)} and deviations {tuple(deviations.shape)}; give [num_conditions, "
                "num_components, *shape] and, all above 0, [num_conditions, num_components]."
            )
        self.means, self.deviations = means, deviations

    @property
    def num_conditions(self) -> int:
        return len(self.means)

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """E[x0 | x, sigma, condition]: the posterior mean of each component, weighted by its responsibility."""
        check_inputs(x, sigma, condition)
        if x.shape[1:] != self.means.shape[2:]:
            shape = tuple(self.means.shape[2:])
            raise ConditionError(f"x has samples of shape {tuple(x.shape[1:])}, the mixture of {shape}; give such.")
        means = self._of(self.means, condition).flatten(2)  # [N, M, D]
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
        self._of(self.means, condition)
        component = draw.mine(draw.indices(self.means.shape[1], len(condition), replacement=True))
        noise = draw.normal(len(condition), *self.means.shape[2:])
        condition = draw.mine(condition)
        centres = self.means[condition, component]
        return centres + per_sample(self.deviations[condition, component], centres) * noise

    def _of(self, table: Tensor, condition: Tensor) -> Tensor:
        """The rows of a table that belong to conditions `[N]`."""
        if condition.device.type == "cpu" and bool((condition < 0).any()):  # it would count from the end
            raise ConditionError(unknown_class(self.num_conditions))
        try:
            return table[condition]
        except (IndexError, TypeError) as error:
            raise ConditionError(unknown_class(self.num_conditions)) from error
