"""Codecs: what is encoded comes back, and nothing leaves the pixels' range."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.diffusion.codec import AffineCodec


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8), st.floats(-1, 1), st.floats(0.1, 4))
@settings(deadline=None)
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
