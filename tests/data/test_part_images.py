"""Real images of a part: its classes alone, by its prior, and the same whatever number of processes shares a batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from msd.conditions.partition import Partition
from msd.data.images import ImageSet
from msd.data.part_images import PartImages
from msd.diffusion.draw import Draw, Slice
from msd.errors import DataError

PARTITION = Partition(parts=((0, 2), (1, 3)), prior=(0.1, 0.2, 0.3, 0.4))


def images(labels: list[int], num_conditions: int = 4) -> ImageSet:
    """Images of which each pixel is its own number over 100, so that it can be told which one it is."""
    pixels = (torch.arange(len(labels)) / 100).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return ImageSet("numbered", pixels, torch.tensor(labels), num_conditions, licence="none")


def test_classes_come_by_the_part_s_prior_and_images_of_a_class_alike() -> None:
    """However often a class occurs among the images: here class 0 has one, and is to be made a quarter of the time."""
    labels = [2, 1, 2, 0, 3, 2]
    pixels, keys = PartImages(images(labels), PARTITION, 0).batch(8000, Draw(0, "test"))
    numbers = (pixels[:, 0, 0, 0] * 100).round().long()
    assert torch.equal(torch.tensor(labels)[numbers], keys)
    shares = {number: count / 8000 for number, count in Counter(numbers.tolist()).items()}
    assert shares == pytest.approx({3: 0.25, 0: 0.25, 2: 0.25, 5: 0.25}, abs=0.02)


def test_processes_share_the_batch_of_one() -> None:
    stream = PartImages(images([0, 1, 2, 3] * 5), PARTITION, 1)
    whole = stream.batch(8, Draw(1, "test", 3))
    halves = [stream.batch(8, Draw(1, "test", 3, slice=Slice(rank, 2))) for rank in range(2)]
    for index in range(2):
        assert torch.equal(whole[index], torch.cat([half[index] for half in halves]))


def test_a_class_without_images_is_refused_unless_nobody_asks_for_it() -> None:
    with pytest.raises(DataError, match="part 0 has no real images of 2 among those of numbered; add some to data"):
        PartImages(images([0, 1, 3]), PARTITION, 0)
    PartImages(images([0, 1, 3]), PARTITION, 1)
    never = Partition(parts=((0, 2), (1, 3)), prior=(0.5, 0.2, 0.0, 0.3))
    PartImages(images([0, 1, 3]), never, 0)


def test_images_of_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="have 3 classes, the partition 4"):
        PartImages(images([0, 1, 2], 3), PARTITION, 0)
