"""Distances between sample sets, on feature clouds whose true distance is known."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from msd.evaluation import metrics, moments
from msd.evaluation.metrics import (
    bootstrap_floor,
    distances_between,
    frechet_distance,
    kernel_distance,
    label_accuracy,
    memorisation,
    nearest_distances,
    precision_recall,
)


def gaussian(num, dimension, seed=0):
    return torch.randn(num, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cloud(mean, covariance, num=300, seed=0):
    """Points whose sample mean and (unbiased) sample covariance are exactly the given ones, by whitening."""
    points = gaussian(num, len(mean), seed)
    points = points - points.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(points.T.cov()), points.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def random_covariance(seed, dimension=3):
    root = gaussian(dimension, dimension, seed)
    return root @ root.T + 0.1 * torch.eye(dimension)


@given(st.lists(st.floats(0.1, 3), min_size=6, max_size=6), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
@settings(max_examples=30)
def test_frechet_distance_of_axis_aligned_gaussians(deviations, shift):
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    first, second = torch.tensor(deviations, dtype=torch.float64).reshape(2, 3)
    shift = torch.tensor(shift, dtype=torch.float64)
    real, generated = cloud(torch.zeros(3), (first**2).diag()), cloud(shift, (second**2).diag(), num=200, seed=1)
    expected = float((shift**2).sum() + ((first - second) ** 2).sum())
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", [0, 10])
def test_frechet_distance_of_turned_gaussians(seed):
    """Covariances that do not commute: tr(C1 + C2 - 2 (C1 C2)^(1/2)) by scipy's matrix root; and symmetric."""
    first, second = random_covariance(seed), random_covariance(seed + 1)
    real, generated = cloud(torch.zeros(3), first), cloud(torch.ones(3), second, seed=1)
    expected = 3 + float(first.trace() + second.trace()) - 2 * float(np.trace(sqrtm((first @ second).numpy())).real)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(generated, real) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    """Identical sets are at distance 0, in float32 and in another order too."""
    points = cloud(torch.ones(4), random_covariance(0, 4))
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(points.float(), points.flip(0).float()) == pytest.approx(0, abs=1e-5)


def test_kernel_distance_is_unbiased_at_zero():
    """Two sets of one law: about 0 and of either sign (unbiased), far below what a shift of half a deviation gives."""
    same = [kernel_distance(gaussian(600, 4, seed), gaussian(600, 4, seed + 100)) for seed in range(8)]
    shifted = kernel_distance(gaussian(600, 4, 0), gaussian(600, 4, 100) + 0.5)
    further = kernel_distance(gaussian(600, 4, 0), gaussian(600, 4, 100) + 1)
    assert abs(sum(same) / 8) < shifted / 20
    assert max(abs(value) for value in same) < shifted / 4
    assert min(same) < 0 < max(same)
    assert further > 2 * shifted


def test_kernel_distance_of_few_points_by_hand():
    """Up to 500 points every subset is the whole set: the unbiased MMD^2 of k(a, b) = (a.b / D + 1)^3 on scaled features."""
    real, generated = gaussian(40, 3, 0), gaussian(40, 3, 1) * 1.5
    scale = real.square().mean().sqrt()

    def kernel(first, second):
        return ((first / scale) @ (second / scale).T / 3 + 1) ** 3

    def off_diagonal_mean(matrix):
        return (matrix.sum() - matrix.trace()) / (40 * 39)

    within = off_diagonal_mean(kernel(real, real)) + off_diagonal_mean(kernel(generated, generated))
    expected = float(within - 2 * kernel(real, generated).mean())
    assert kernel_distance(real, generated) == pytest.approx(expected, rel=1e-4)
    assert kernel_distance(10 * real, 10 * generated) == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_depends_on_its_seed_only():
    """The same seed gives the same subsets whatever torch's global state, which is left as it was."""
    real, generated = gaussian(700, 3, 0), gaussian(700, 3, 1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = kernel_distance(real, generated, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert kernel_distance(real, generated, seed=3) == first
    assert kernel_distance(real, generated, seed=4) != first


def test_precision_recall_of_extremes():
    """Identical sets: 1 and 1. Sets far apart: 0 and 0."""
    points = gaussian(200, 3)
    assert precision_recall(points, points) == (1.0, 1.0)
    assert precision_recall(points, points + 100) == (0.0, 0.0)


def test_precision_recall_of_a_dropped_mode():
    """Samples from one of two distant modes are realistic (high precision) but cover only half (recall about one half)."""
    real = gaussian(400, 2) + torch.tensor([[50.0, 0], [-50.0, 0]]).repeat(200, 1)
    generated = gaussian(400, 2, seed=1) + torch.tensor([50.0, 0])
    precision, recall = precision_recall(real, generated)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5
    back = precision_recall(generated, real)  # exchanged: half of the samples are unlike anything real
    assert back == (recall, precision)


def test_precision_recall_by_hand():
    """Real 0, 1, 10 with one neighbour have radii 1, 1, 9; generated 0.5, 2.5, 30 have 2, 2, 27.5: 2/3 and 1."""
    real, generated = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[0.5], [2.5], [30.0]])
    precision, recall = precision_recall(real, generated, num_neighbours=1)
    # 0.5 is within 1 of 0; 2.5 is within 9 of 10; 30 is in no ball. 0, 1 are within 2 of 0.5; 10 within 27.5 of 30.
    assert precision == pytest.approx(2 / 3)
    assert recall == pytest.approx(1)


def test_precision_recall_cuts_to_the_smaller_set():
    """Only as many of the larger set are used as the smaller one has."""
    real, generated = gaussian(100, 3), gaussian(50, 3, seed=1)
    assert precision_recall(real, generated) == precision_recall(real[:50], generated)


def test_label_accuracy_counts_hits():
    """Three of four."""
    assert label_accuracy(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.75


def test_memorisation_tells_copies_from_new_images():
    """Copies are all counted, distant images none, and a mixture (over several chunks) by its share."""
    real = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distant = torch.rand(1900, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 + 2
    copies = real.repeat(7, 1, 1, 1)
    assert memorisation(real, real)["share_of_copies"] == 1
    assert memorisation(real, distant)["share_of_copies"] == 0
    assert memorisation(real, torch.cat([copies, distant]))["share_of_copies"] == pytest.approx(2100 / 4000)
    fresh = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    assert memorisation(real, fresh)["share_of_copies"] < 0.05  # new images of the same law: about the 1% of real ones


def test_memorisation_distances_are_root_mean_square_per_pixel():
    """Every pixel off by 0.25 is a distance of 0.25; the reals' own distance is to the nearest other one."""
    real = torch.tensor([-10.0, 0.0, 2.0, 5.0])[:, None, None, None].expand(4, 1, 4, 4)
    measured = memorisation(real, real + 0.25)
    assert measured["median_nearest_distance"] == pytest.approx(0.25, rel=1e-5)
    assert measured["median_nearest_distance_real"] == pytest.approx(2, rel=1e-5)  # 10, 2, 2, 3: the lower median


def test_bootstrap_floor_falls_with_the_number_of_samples():
    """What a perfect copy scores falls about like 1 / N, and is repeatable."""
    real = gaussian(500, 4)
    floors = [bootstrap_floor(real, num) for num in (50, 200, 800)]
    assert floors[0] > floors[1] > floors[2] > 0
    assert math.log(floors[0] / floors[2]) / math.log(16) == pytest.approx(1, abs=0.3)
    assert bootstrap_floor(real, 50) == floors[0]
    assert bootstrap_floor(real, 50, seed=1) != floors[0]


def test_memorisation_of_bytes_is_that_of_their_floats():
    """8-bit pixels, as they lie in a file, and the same as numbers in [-1, 1]."""
    generator = torch.Generator().manual_seed(3)
    bytes_ = torch.randint(0, 256, (90, 3, 4, 4), generator=generator).to(torch.uint8)
    generated = torch.rand(50, 3, 4, 4, generator=generator) * 2 - 1
    assert memorisation(bytes_, generated) == memorisation(bytes_.float() / 127.5 - 1, generated)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 100.0]))
@settings(max_examples=40)
def test_nearest_distances_by_pieces_are_the_exact_ones(num_points, num, rows, seed, scale):
    """Whatever the size of a piece, and for the nearest other one as well."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, 1, 2, 3, generator=generator) * scale
    pixels = torch.randn(num, 1, 2, 3, generator=generator) * scale
    exact = (points[:, None] - pixels[None]).flatten(2).square().mean(2).sqrt()
    between = (pixels[:, None] - pixels[None]).flatten(2).square().mean(2).sqrt().fill_diagonal_(math.inf)
    with mock.patch.object(metrics, "ROWS_AT_A_TIME", rows):
        found = nearest_distances(points, pixels)
        others = nearest_distances(pixels, pixels, torch.arange(num))
    assert torch.allclose(found, exact.min(1).values, rtol=1e-3, atol=1e-3 * scale)
    assert torch.allclose(others, between.min(1).values, rtol=1e-3, atol=1e-3 * scale)


def test_large_sets_are_measured_in_pieces_and_by_samples(monkeypatch):
    """No matrix of distances has more rows or columns than a piece; of many real images some stand for all."""
    shapes = []
    cdist, addmm = torch.cdist, torch.addmm

    def noted(result):
        shapes.append(result.shape)
        return result

    monkeypatch.setattr(metrics.torch, "cdist", lambda *points: noted(cdist(*points)))
    monkeypatch.setattr(metrics.torch, "addmm", lambda *terms, **factors: noted(addmm(*terms, **factors)))
    real, generated = gaussian(300, 4).float(), gaussian(200, 4, seed=1).float()
    whole = precision_recall(real, generated)
    monkeypatch.setattr(metrics, "ROWS_AT_A_TIME", 30)
    shapes.clear()
    assert precision_recall(real, generated) == pytest.approx(whole, abs=0.01)
    assert max(rows for rows, _ in shapes) == 30
    monkeypatch.setattr(metrics, "MOST_NEIGHBOURS", 90)
    shapes.clear()
    assert precision_recall(real, generated) == pytest.approx(precision_recall(real[:90], generated[:90]))
    assert max(columns for _, columns in shapes) == 90

    images = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    everyone = distances_between(images)
    shapes.clear()
    monkeypatch.setattr(metrics, "MOST_BETWEEN", 50)
    some = distances_between(images)
    assert len(some) == 50
    assert set(some.tolist()) <= set(everyone.tolist())
    assert max(max(shape) for shape in shapes) <= 30
    assert torch.equal(some, distances_between(images))


def test_frechet_distance_sums_moments_in_pieces(monkeypatch):
    real, generated = gaussian(500, 4), gaussian(300, 4, seed=1) + 1
    whole = frechet_distance(real, generated)
    monkeypatch.setattr(moments, "ADDED_AT_A_TIME", 70)
    assert frechet_distance(real, generated) == pytest.approx(whole, rel=1e-9)
