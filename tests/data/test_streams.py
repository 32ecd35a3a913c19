"""Real images of a part: its classes alone, by its prior, and the same whatever number of processes shares a batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.data.streams import SampleStream, image_stream
from msd.diffusion.denoiser import DenoiserSpec
from msd.diffusion.draw import Draw, Slice
from msd.errors import DataError

SPEC = DenoiserSpec(noise_shape=(1, 2, 2), num_conditions=4)
PARTITION = Partition(parts=((0, 2), (1, 3)), prior=(0.1, 0.2, 0.3, 0.4))


def images(labels: list[int], num_conditions: int = 4) -> ImageSet:
    """Images of which each pixel is its own number over 100, so that it can be told which one it is."""
    pixels = (torch.arange(len(labels)) / 100).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return ImageSet("numbered", pixels, torch.tensor(labels), num_conditions, licence="none")


def test_classes_come_by_the_part_s_prior_and_images_of_a_class_alike() -> None:
    """However often a class occurs among the images: here class 0 has one, and is to be made a quarter of the time."""
    labels = [2, 1, 2, 0, 3, 2]
    pixels, keys = image_stream(images(labels), SPEC, PARTITION, 0).batch(8000, Draw(0, "test"))
    numbers = (pixels[:, 0, 0, 0] * 100).round().long()
    assert torch.equal(torch.tensor(labels)[numbers], keys)
    shares = {number: count / 8000 for number, count in Counter(numbers.tolist()).items()}
    assert shares == pytest.approx({3: 0.25, 0: 0.25, 2: 0.25, 5: 0.25}, abs=0.02)


def test_processes_share_the_batch_of_one() -> None:
    stream = image_stream(images([0, 1, 2, 3] * 5), SPEC, PARTITION, 1)
    whole = stream.batch(8, Draw(1, "test", 3))
    halves = [stream.batch(8, Draw(1, "test", 3, slice=Slice(rank, 2))) for rank in range(2)]
    for index in range(2):
        assert torch.equal(whole[index], torch.cat([half[index] for half in halves]))


def test_a_class_without_images_is_refused_unless_nobody_asks_for_it() -> None:
    with pytest.raises(DataError, match="part 0 has no real images of 2; add some to numbered"):
        image_stream(images([0, 1, 3]), SPEC, PARTITION, 0)
    image_stream(images([0, 1, 3]), SPEC, PARTITION, 1)
    never = Partition(parts=((0, 2), (1, 3)), prior=(0.5, 0.2, 0.0, 0.3))
    image_stream(images([0, 1, 3]), SPEC, never, 0)


def test_images_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="have 3 classes, the teacher 4"):
        image_stream(images([0, 1, 2], 3), SPEC, PARTITION, 0)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"have shape \(1, 2, 2\), the teacher's \(1, 8, 8\)"):
        image_stream(images([0, 1, 2, 3]), DenoiserSpec(noise_shape=(1, 8, 8), num_conditions=4), PARTITION, 0)


@given(st.lists(st.integers(0, 3), min_size=30, max_size=90), st.floats(0, 0.9))
def test_what_is_held_out_is_never_drawn(labels: list[int], share: float) -> None:
    """And what is not, is; of each class the share, rounded down."""
    keys = torch.tensor([0, 2, *labels])
    numbers = torch.arange(len(keys))
    stream = SampleStream(keys, lambda index: numbers[index], PARTITION, 0, what="x", remedy="y", held_out=share)
    held, held_keys = stream.held_out()
    assert torch.equal(keys[held], held_keys)
    for key in (0, 2):
        num = int((keys == key).sum())
        assert int((held_keys == key).sum()) in (int(num * share), int(num * share + 1e-4))
    drawn = set(stream.batch(4000, Draw(0, "test"))[0].tolist())
    own = set(numbers[(keys == 0) | (keys == 2)].tolist())
    assert drawn <= own - set(held.tolist())
    assert len(drawn) >= 0.9 * len(own - set(held.tolist()))
