"""Distances between two sets of images, on features. Frechet and KID are torchmetrics'; precision and recall are ours."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class _Passthrough(nn.Module):
    """Stands where torchmetrics expects an image network: our features are extracted once, for all metrics."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)) of features `[N, D]` and `[M, D]`; biased upwards by small N, M."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Passthrough(real.shape[1]), normalize=True).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return float(metric.compute())


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
    cut to the smaller one's size, since a larger set has smaller balls.
    """
    size = min(len(real), len(generated))
    real, generated = real[:size], generated[:size]

    def radii(points: Tensor) -> Tensor:
        nearest = torch.cdist(points, points).topk(min(num_neighbours + 1, len(points)), largest=False).values
        return nearest[:, -1]  # the first is the point itself

    distance = torch.cdist(generated, real)
    precision = (distance <= radii(real)[None, :]).any(1).double().mean()
    recall = (distance <= radii(generated)[:, None]).any(0).double().mean()
    return float(precision), float(recall)


def label_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Share of samples that the feature network's classifier takes for what was asked."""
    return float((predicted == labels).double().mean())


def memorisation(real_pixels: Tensor, generated_pixels: Tensor) -> dict[str, Any]:
    """Distance of generated images to their nearest training image, root mean square per pixel, beside the real images' own.

    `share_of_copies` counts samples nearer to a training image than the closest 1% of real images are to each other. A
    median far below the real one, or many copies, means the model repeats its training set.
    """
    real, generated = real_pixels.flatten(1), generated_pixels.flatten(1)
    scale = real.shape[1] ** 0.5

    def nearest_distance(points: Tensor, exclude_self: bool) -> Tensor:
        distance = torch.cdist(points, real, compute_mode="donot_use_mm_for_euclid_dist") / scale
        return (distance.fill_diagonal_(torch.inf) if exclude_self else distance).min(1).values

    between_real = nearest_distance(real, exclude_self=True)
    nearest = torch.cat([nearest_distance(chunk, exclude_self=False) for chunk in generated.split(2000)])
    # Twins among the real images would set the bar to zero, so they don't count for it.
    bar = between_real[between_real > 0].quantile(0.01) if (between_real > 0).any() else between_real.new_zeros(())
    return {
        "median_nearest_distance": float(nearest.median()),
        "median_nearest_distance_real": float(between_real.median()),
        "share_of_copies": float((nearest <= bar).double().mean()),
    }


def bootstrap_floor(real: Tensor, num_samples: int, repeats: int = 5, seed: int = 0) -> float:
    """Mean Frechet distance of `num_samples` redraws of the real features to themselves: what a perfect copy would score."""
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(len(real), (num_samples,), generator=generator) for _ in range(repeats))
    return sum(frechet_distance(real, real[draw]) for draw in draws) / repeats
