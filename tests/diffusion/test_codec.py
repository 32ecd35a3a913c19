"""Codecs: what is encoded comes back, and nothing leaves the pixels' range."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.diffusion.codec import AffineCodec, FoldedCodec
from msd.errors import DataError


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.floats(-1, 1), st.floats(0.1, 4))
def test_affine_round_trip(pixels, shift, scale):
    """Decoding what was encoded gives the pixels back, and the shift is the model space's zero."""
    codec, original = AffineCodec(shift, scale), torch.tensor(pixels)
    torch.testing.assert_close(codec.decode(codec.encode(original)), original, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(codec.encode(torch.tensor([shift, shift + scale])), torch.tensor([0.0, 1.0]))


def test_decoding_clamps_to_the_pixel_range():
    """Samples beyond the pixels' range come out at its ends."""
    decoded = AffineCodec(shift=-0.5, scale=2.0).decode(torch.tensor([-5.0, 0.0, 0.5, 5.0]))
    assert decoded.tolist() == [-1.0, -0.5, 0.5, 1.0]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=4))
def test_affine_keeps_the_shape(shape):
    """Shift and scale move no pixel."""
    assert AffineCodec().pixel_shape(tuple(shape)) == tuple(shape)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 4]), st.integers(0, 2**31))
def test_folding_moves_pixels_and_changes_none(channels, rows, columns, fold, seed):
    """The folded samples are the affine ones in other places: each square of pixels is one place's channels."""
    shape = (channels, rows * fold, columns * fold)
    pixels = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    plain, folded = AffineCodec(0.1, 1.5), FoldedCodec(0.1, 1.5, fold)
    samples = folded.encode(pixels)
    assert tuple(samples.shape[1:]) == folded.noise_shape(shape)
    assert folded.pixel_shape(folded.noise_shape(shape)) == shape
    assert torch.equal(samples.flatten().sort().values, plain.encode(pixels).flatten().sort().values)
    assert torch.equal(samples[:, :, 0, 0], plain.encode(pixels)[:, :, :fold, :fold].flatten(1))
    torch.testing.assert_close(folded.decode(samples), pixels, rtol=1e-5, atol=1e-6)


def test_a_size_that_cannot_be_folded_is_refused():
    with pytest.raises(DataError, match=r"images of 9x8 pixels cannot be folded by 2; set network.fold=1"):
        FoldedCodec(fold=2).noise_shape((1, 9, 8))
