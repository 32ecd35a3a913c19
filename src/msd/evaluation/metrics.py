"""Distances between two sets of images, on features. KID is torchmetrics'; Frechet, precision and recall are ours."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from msd.data.images import as_float
from msd.evaluation.moments import Moments, frechet

ROWS_AT_A_TIME = 2048
"""Points of each set whose distances are in memory together."""
MOST_NEIGHBOURS = 10_000
"""Points of each set for precision and recall."""
MOST_BETWEEN = 2000
"""Real images for which the nearest other one is looked for."""


class _Passthrough(nn.Module):
    """Stands where torchmetrics expects an image network: our features are extracted once, for all metrics."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)) of features `[N, D]` and `[M, D]`; biased upwards by small N, M."""
    return frechet(Moments.of(real), Moments.of(generated))


def kernel_distance(real: Tensor, generated: Tensor, seed: int = 0) -> float:
    """KID: squared maximum mean discrepancy under a cubic kernel, mean over 50 random subsets of at most 500; unbiased.

    Features are divided by the real ones' root mean square first, since the cubic kernel is not scale-free.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(500, len(real), len(generated))
    scale = real.square().mean().sqrt()
    with warnings.catch_warnings():  # it warns of its memory use on large data sets, whatever the size
        warnings.simplefilter("ignore", UserWarning)
        metric = KernelInceptionDistance(feature=_Passthrough(real.shape[1]), subsets=50, subset_size=size, normalize=True)
    metric.update(real / scale, real=True)
    metric.update(generated / scale, real=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return float(metric.compute()[0])


def precision_recall(real: Tensor, generated: Tensor, num_neighbours: int = 3) -> tuple[float, float]:
    """k-NN precision and recall (Kynkaanniemi et al. 2019) on features `[N, D]`.

    Precision: share of generated samples inside the k-th-neighbour ball of some real one; recall: the reverse. Both sets are
    cut to the smaller one's size, since a larger set has smaller balls, and to MOST_NEIGHBOURS.
    """
    size = min(len(real), len(generated), MOST_NEIGHBOURS)
    real, generated = real[:size], generated[:size]

    def radii(points: Tensor) -> Tensor:
        num = min(num_neighbours + 1, size)  # the first is the point itself
        pieces = (torch.cdist(some, points).topk(num, largest=False).values[:, -1] for some in points.split(ROWS_AT_A_TIME))
        return torch.cat(list(pieces))

    real_radii, generated_radii = radii(real), radii(generated)
    inside, covered = 0, torch.zeros(size, dtype=torch.bool)
    for some, their_radii in zip(generated.split(ROWS_AT_A_TIME), generated_radii.split(ROWS_AT_A_TIME), strict=True):
        distance = torch.cdist(some, real)
        inside += int((distance <= real_radii[None, :]).any(1).sum())
        covered |= (distance <= their_radii[:, None]).any(0)
    return inside / size, float(covered.double().mean())


def label_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of samples that the feature network's classifier takes for what was asked."""
    return float((predicted == labels).double().mean())


def memorisation(real_pixels: Tensor, generated_pixels: Tensor, between_real: Tensor | None = None) -> dict[str, Any]:
    """Distance of generated images to their nearest training image, root mean square per pixel, beside the real images' own.

    `share_of_copies` counts samples nearer to a training image than the closest 1% of real images are to each other. A
    median far below the real one, or many copies, means the model repeats its training set. `real_pixels` may be 8-bit ones
    in a file; `between_real` is what `distances_between` says of them, where it is known.
    """
    if between_real is None:
        between_real = distances_between(real_pixels)
    nearest = nearest_distances(generated_pixels, real_pixels)
    # Twins among the real images would set the bar to zero, so they don't count for it.
    bar = between_real[between_real > 0].quantile(0.01) if (between_real > 0).any() else between_real.new_zeros(())
    return {
        "median_nearest_distance": float(nearest.median()),
        "median_nearest_distance_real": float(between_real.median()),
        "share_of_copies": float((nearest <= bar).double().mean()),
    }


def distances_between(pixels: Tensor) -> Tensor:
    """Of each image, or of a random MOST_BETWEEN of them, the distance to the nearest other one."""
    index = torch.arange(len(pixels))
    if len(pixels) > MOST_BETWEEN:
        index = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:MOST_BETWEEN].sort().values
    return nearest_distances(as_float(pixels[index]), pixels, index)


def nearest_distances(points: Tensor, pixels: Tensor, own: Tensor | None = None) -> Tensor:
    """Root mean square per pixel between each of `points` `[M, C, H, W]` and its nearest among `pixels` `[N, C, H, W]`,
    other than number `own` `[M]` of them; infinite where there is no other.

    The nearest is found by products of matrices, a piece of both sets at a time; the distance is then taken by itself, since
    a difference of large products says little about small distances.
    """
    points = points.flatten(1)
    squares = points.square().sum(1)
    best, found = torch.full((len(points),), torch.inf), torch.full((len(points),), -1)
    for start in range(0, len(pixels), ROWS_AT_A_TIME):
        some = as_float(pixels[start : start + ROWS_AT_A_TIME]).flatten(1)
        their_squares = some.square().sum(1)
        for place in range(0, len(points), ROWS_AT_A_TIME):
            these = slice(place, place + ROWS_AT_A_TIME)
            distance = torch.addmm(their_squares[None, :], points[these], some.T, alpha=-2)
            if own is not None:
                column = own[these] - start
                rows = ((column >= 0) & (column < len(some))).nonzero()[:, 0]
                distance[rows, column[rows]] = torch.inf
            nearest, index = distance.min(1)
            closer = nearest + squares[these] < best[these]
            best[these] = torch.where(closer, nearest + squares[these], best[these])
            found[these] = torch.where(closer, index + start, found[these])
    result = torch.full((len(points),), torch.inf)
    for rows in (found >= 0).nonzero()[:, 0].split(ROWS_AT_A_TIME):
        difference = points[rows] - as_float(pixels[found[rows]]).flatten(1)
        result[rows] = difference.square().mean(1).sqrt()
    return result


def bootstrap_floor(real: Tensor, num_samples: int, repeats: int = 5, seed: int = 0) -> float:
    """Mean Frechet distance of `num_samples` redraws of the real features to themselves: what a perfect copy would score."""
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(len(real), (num_samples,), generator=generator) for _ in range(repeats))
    moments = Moments.of(real)
    return sum(frechet(moments, Moments.of(real[draw])) for draw in draws) / repeats
