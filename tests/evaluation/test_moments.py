"""Frechet distance by its moments, against plain numpy to six digits; and the protocol's name, which one function gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from msd.evaluation.moments import Moments, frechet
from msd.evaluation.protocol import called, counted, explained, shortfalls


def numpy_fid(real: np.ndarray, generated: np.ndarray) -> float:
    """As published codes have it: means, np.cov, scipy's root of the product."""
    first, second = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    difference = real.mean(0) - generated.mean(0)
    return float(difference @ difference + np.trace(first + second) - 2 * np.trace(sqrtm(first @ second).real))


def features(num: int, dimension: int, seed: int) -> torch.Tensor:
    """As Inception's: not negative, skewed, correlated, of very different spread."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(0)) / dimension**0.5
    spread = torch.logspace(-2, 0, dimension)
    return (torch.randn(num, dimension, generator=generator) @ mixing).relu() * spread + 0.01 * seed * spread


@pytest.mark.parametrize("dimension", [3, 64, 200])
def test_it_is_numpys_to_six_digits(dimension: int) -> None:
    real, generated = features(900, dimension, 1), features(700, dimension, 2)
    found = frechet(Moments.of(real), Moments.of(generated))
    assert found == pytest.approx(numpy_fid(real.double().numpy(), generated.double().numpy()), rel=1e-6)


def test_singular_covariances_lose_nothing() -> None:
    """Fewer features than dimensions: embedded in a space of 300 by an isometry, the distance is that of the 12 they span,
    where numpy's root is of full rank."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.linalg.qr(torch.randn(300, 12, generator=generator, dtype=torch.float64)).Q
    real, generated = features(60, 12, 1).double(), features(40, 12, 3).double()
    wanted = numpy_fid(real.numpy(), generated.numpy())
    real, generated = Moments.of(real @ frame.T), Moments.of(generated @ frame.T)
    assert frechet(real, generated) == pytest.approx(wanted, rel=1e-6)
    bare = [Moments(one.mean, one.covariance) for one in (real, generated)]  # as in a file
    assert frechet(*bare) == pytest.approx(wanted, rel=1e-6)
    assert frechet(real, bare[1]) == pytest.approx(wanted, rel=1e-6)
    few = features(5, 40, 1), features(7, 40, 2)
    eigenvalues = np.linalg.eigvals(np.cov(few[0].double(), rowvar=False) @ np.cov(few[1].double(), rowvar=False))
    cross = np.sqrt(np.sort(eigenvalues.real)[-4:]).sum()  # of a product of rank 4 only four are not rounding
    first, second = (Moments.of(one) for one in few)
    variances = float(first.covariance.trace() + second.covariance.trace())
    wanted = float((first.mean - second.mean).square().sum()) + variances - 2 * cross
    assert frechet(first, second) == pytest.approx(wanted, rel=1e-6)


def test_a_set_is_at_no_distance_from_itself() -> None:
    """Also where nothing varies at all, and where a mean is far from zero."""
    for values in (features(30, 100, 1), torch.ones(5, 4), features(100, 8, 1) + 100):
        moments = Moments.of(values)
        assert 0 <= frechet(moments, moments) < 1e-8 * (1 + float(moments.covariance.trace()))


def test_what_is_not_finite_has_no_distance() -> None:
    assert np.isnan(frechet(Moments.of(torch.full((3, 2), torch.nan)), Moments.of(torch.ones(3, 2))))


def test_a_distance_is_called_fid_by_the_protocol_alone() -> None:
    whole = shortfalls(50_000, True, None, None)
    assert whole == shortfalls(50_000, True, 50_000, 50_000) == []
    assert called("FID-Inception", 50_000, whole) == "FID"
    for given, words in (
        ((10_000, True, None, None), "10,000 samples, not 50,000"),
        ((60_000, True, None, None), "60,000 samples, not 50,000"),
        ((50_000, False, None, None), "prior"),
        ((50_000, True, 10_000, 60_000), "10,000 of 60,000 images"),
    ):
        short = shortfalls(*given)
        assert len(short) == 1
        assert words in short[0]
        name = called("FID-Inception", given[0], short)
        assert name == f"FID-Inception ({given[0]:,} samples)"
        assert counted(name, given[0]) == name
        assert "not by the papers' protocol" in explained(name)
    assert "by the papers' protocol" in explained("FID")
    for other in ("FD-digits", "FID-Lite0"):
        assert called(other, 50_000, []) == other
        assert counted(other, 300) == f"{other} on 300 samples"
        assert "rows of this page" in explained(other)
