"""Mean and covariance of features, and the Frechet distance that is made of nothing else; in double precision throughout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ADDED_AT_A_TIME = 20_000
"""Features that are summed together."""


@dataclass(frozen=True)
class Moments:
    """`mean` `[D]` and unbiased `covariance` `[D, D]` of features, float64."""

    mean: Tensor
    covariance: Tensor
    factor: Tensor | None = None
    """An R `[D, N]` with R R^T = `covariance`, where one is at hand."""

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Those of `features` `[N, D]`, N at least 2."""
        num, dimension = features.shape
        if num <= dimension:  # the features themselves are a root, and the better one
            values = features.double()
            factor = (values - values.mean(0)).T / (num - 1) ** 0.5
            return cls(values.mean(0), factor @ factor.T, factor)
        sums = Sums.none(dimension)
        for some in features.split(ADDED_AT_A_TIME):
            sums.add(some)
        return sums.moments()

    @cached_property
    def root(self) -> Tensor:
        """`factor`, or an R `[D, rank]` like it; directions in which nothing varies are left out.

        Below eps * D * (the largest variance) a variance is rounding, whose root would be none: 1e-16 becomes 1e-8.
        """
        if self.factor is not None:
            return self.factor
        variances, directions = torch.linalg.eigh(self.covariance)
        bar = torch.finfo(variances.dtype).eps * len(variances) * variances.abs().max()
        kept = variances > bar
        return directions[:, kept] * variances[kept].sqrt()


@dataclass
class Sums:
    """What moments are made of, `num` features at a time: their `total` `[D]` and that of their `products` `[D, D]`."""

    num: int
    total: Tensor
    products: Tensor

    @classmethod
    def none(cls, num_features: int) -> Sums:
        double = torch.float64
        return cls(0, torch.zeros(num_features, dtype=double), torch.zeros(num_features, num_features, dtype=double))

    def add(self, features: Tensor) -> None:
        """Add those of `features` `[n, D]`."""
        values = features.double()
        self.num += len(values)
        self.total += values.sum(0)
        self.products.addmm_(values.T, values)

    def moments(self) -> Moments:
        mean = self.total / self.num
        return Moments(mean, (self.products - self.num * torch.outer(mean, mean)) / (self.num - 1))


def frechet(first: Moments, second: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, eq. 6); NaN where a number is not finite.

    With C = R R^T the last trace is the sum of the singular values of R1^T R2, which needs no root of a product and loses
    nothing where covariances are singular, as of fewer features than dimensions.
    """
    if not all(one.isfinite().all() for moments in (first, second) for one in (moments.mean, moments.covariance)):
        return float("nan")
    means = (first.mean - second.mean).square().sum()
    variances = first.covariance.trace() + second.covariance.trace()
    shared = torch.linalg.svdvals(first.root.T @ second.root).sum()
    return max(0.0, float(means + variances - 2 * shared))  # below zero is rounding
