"""The delivered thing: the router is the partition, and an image is its seed's and label's alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import msd
from builders import UNIFORM, save_student, tiny_denoiser
from msd.cohort.backends import EagerGenerator
from msd.cohort.manifest import Manifest, assemble
from msd.conditions.partition import Partition
from msd.diffusion.solvers import one_step
from msd.errors import ConditionError, PartitionError, WeightsError
from msd.networks.facts import read_facts
from msd.networks.folder import CODECS, load_denoiser


def test_each_label_is_answered_by_the_student_of_its_part(cohort: Manifest, halves: Partition) -> None:
    """Router = partition: every image equals that of the part's own student, run alone on the same noise."""
    loaded = msd.Cohort.load(cohort.folder)
    labels = torch.tensor([3, 0, 9, 3, 4, 1])
    noise = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = loaded.generate(labels, noise=noise)
    assert torch.equal(loaded.route(labels), halves.assign(labels))
    for index, label in enumerate(labels.tolist()):
        student = load_denoiser(cohort.student(label % 2))
        alone = one_step(student, noise[index : index + 1], labels[index : index + 1], 2.5)
        torch.testing.assert_close(images[index : index + 1], alone.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_generate_as_the_readme_promises(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    images = loaded.generate(labels=[3, 3, 7], seed=0)
    assert images.dtype == torch.float32
    assert images.shape == (3, 1, 8, 8)
    assert images.min() >= -1
    assert images.max() <= 1
    assert torch.equal(images, loaded.generate(labels=[3, 3, 7], seed=0))
    assert not torch.equal(images, loaded.generate(labels=[3, 3, 7], seed=1))
    assert not torch.equal(images[0], images[1])


def test_only_the_students_asked_for_are_loaded(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([1, 3], noise=torch.zeros(2, 1, 8, 8))
    assert loaded.students.resident == (1,)


def test_a_student_opens_in_plain_diffusers(cohort: Manifest) -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    model = UNet2DModel.from_pretrained(cohort.student(0), low_cpu_mem_usage=False)
    student = load_denoiser(cohort.student(0))
    for ours, theirs in zip(student.network.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_image_depends_on_its_own_seed_and_label_alone(cohort: Manifest) -> None:
    """Bit for bit in any order and with any neighbours, as long as each student gets batches of one size."""
    loaded = msd.Cohort.load(cohort.folder)
    labels, seeds = [3, 0, 9, 4, 5, 2], [11, 12, 13, 14, 15, 16]
    images = loaded.generate(labels, seeds=seeds)
    order = [4, 2, 0, 5, 3, 1]
    assert torch.equal(loaded.generate([labels[i] for i in order], seeds=[seeds[i] for i in order]), images[order])
    neighbours = loaded.generate([3, 6, 1, 8, 7, 0], seeds=[11, 99, 98, 97, 96, 95])
    assert torch.equal(neighbours[0], images[0])


def test_an_image_does_not_depend_on_the_partition(tmp_path: Path) -> None:
    """The same student behind another router makes the same image of the same seed."""
    images = []
    for name, parts in (("one", (tuple(range(10)),)), ("two", ((1, 2, 3), (0, 4, 5, 6, 7, 8, 9)))):
        partition = Partition(parts=parts, prior=UNIFORM)
        students = [save_student(tmp_path / name / str(part), partition, part) for part in range(len(parts))]
        folder = assemble(tmp_path / name / "cohort", name, partition, students, recipe={}).folder
        images.append(msd.Cohort.load(folder).generate([2, 1, 3], seeds=[7, 8, 9]))
    assert torch.equal(*images)


def test_other_batches_differ_by_rounding_only(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    together = loaded.generate([3] * 33, seed=5)
    alone = torch.cat([loaded.generate([3], seed=5 + index) for index in range(33)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_seed_counts_up_from_image_to_image(cohort: Manifest) -> None:
    """EDM's convention: seed 5 for three images is the seeds 5, 6 and 7. Without any, they are fresh."""
    loaded = msd.Cohort.load(cohort.folder)
    assert torch.equal(loaded.generate([1, 2, 3], seed=5), loaded.generate([1, 2, 3], seeds=[5, 6, 7]))
    assert not torch.equal(loaded.generate([1]), loaded.generate([1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0, "seeds": [1]}, "seed and seeds each say what an image comes from; give one of them"),
        ({"seed": 0, "noise": torch.zeros(1, 1, 8, 8)}, "seed and noise each say"),
        ({"seeds": [1, 2]}, "there are 2 seeds for 1 labels; give one a label"),
        ({"seeds": [-1]}, "seed -1 is out of range; give a whole number from 0 to"),
        ({"seed": 2**63}, "is out of range"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(cohort: Manifest, arguments: dict, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        msd.Cohort.load(cohort.folder).generate([3], **arguments)


def test_what_is_generated_can_be_worked_on(cohort: Manifest) -> None:
    """Images are ordinary tensors, and a student in use can be copied and trained: neither is bound to inference."""
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([1], seed=0).add_(1)
    with loaded.student(1) as student:
        assert isinstance(student, EagerGenerator)
        copied = student.student.copy()
    copied(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.tensor([1])).sum().backward()


def test_students_come_and_go_under_a_limit(cohort: Manifest) -> None:
    """With room for one student, each request finds its own and the same images come out."""
    free, tight = msd.Cohort.load(cohort.folder), msd.Cohort.load(cohort.folder, max_bytes=1)
    for labels in ([1], [2], [1, 2], [2, 4, 6]):
        assert torch.equal(tight.generate(labels, seed=3), free.generate(labels, seed=3))
        assert len(tight.students.resident) == 1


def test_threads_may_share_a_cohort(cohort: Manifest) -> None:
    """Requests side by side, with room for one student at a time, each get their own images."""
    loaded = msd.Cohort.load(cohort.folder, max_bytes=1)
    requests = [([number % 10, (number + 1) % 10], number) for number in range(24)]
    expected = [loaded.generate(labels, seed=seed) for labels, seed in requests]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda request: loaded.generate(request[0], seed=request[1]), requests))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_image_does_not_depend_on_the_number_of_threads(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    images = loaded.generate([3] * 8, seed=0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(loaded.generate([3] * 8, seed=0), images, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_an_unknown_backend_is_refused(cohort: Manifest) -> None:
    with pytest.raises(WeightsError, match="there is no backend 'lazy'; choose one of eager"):
        msd.Cohort.load(cohort.folder, backend="lazy")


def test_an_empty_request_is_an_empty_answer(cohort: Manifest) -> None:
    assert msd.Cohort.load(cohort.folder).generate([], seed=0).shape == (0, 1, 8, 8)


def test_a_label_outside_the_partition_is_named(cohort: Manifest) -> None:
    with pytest.raises(PartitionError, match="class 10 is outside the partition; classes are 0 to 9"):
        msd.Cohort.load(cohort.folder).generate([3, 10], seed=0)


def test_noise_of_a_wrong_shape_is_refused(cohort: Manifest) -> None:
    with pytest.raises(ConditionError, match=r"noise has shape \(2, 1, 8, 8\), not \(1, 1, 8, 8\)"):
        msd.Cohort.load(cohort.folder).generate([3], noise=torch.zeros(2, 1, 8, 8))


@dataclass(frozen=True)
class Doubling:
    """A codec whose pixels are twice as wide and high as its noise, standing for a VAE."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, :, ::2, ::2]

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.repeat_interleave(2, -1).repeat_interleave(2, -2).clamp(-1, 1)

    def pixel_shape(self, noise_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = noise_shape
        return channels, 2 * height, 2 * width


def test_noise_need_not_have_the_images_shape(tmp_path: Path, halves: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images come out in the pixels' shape, also of a request that several students answer."""
    monkeypatch.setitem(CODECS, "doubling", Doubling)
    students = [save_student(tmp_path / f"student-{part}", halves, part, codec=Doubling()) for part in range(2)]
    loaded = msd.Cohort.load(assemble(tmp_path / "cohort", "test", halves, students, recipe={}).folder)
    assert (loaded.noise_shape, loaded.pixel_shape) == ((1, 8, 8), (1, 16, 16))
    for labels in ([1], [1, 2, 3], []):
        assert loaded.generate(labels, seed=0).shape == (len(labels), 1, 16, 16)


def test_how_to_sample_is_saved_with_the_weights(cohort: Manifest) -> None:
    """A student that needs anything else told to it to sample right is a bug (DESIGN 4.2)."""
    facts = read_facts(cohort.student(0))
    assert facts["spec"]["sigma_init"] == 2.5
    assert facts["spec"]["parameterisation"] == {"kind": "edm", "sigma_data": 0.5}
    assert load_denoiser(cohort.student(0)).spec == tiny_denoiser(0, sigma_init=2.5).spec


def test_students_of_another_shape_are_refused(tmp_path: Path, halves: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "doubling", Doubling)
    codecs = [None, Doubling()]
    students = [save_student(tmp_path / f"student-{part}", halves, part, codec=codecs[part]) for part in range(2)]
    with pytest.raises(WeightsError, match=r"student-1 makes pixels of shape \(1, 16, 16\), the others \(1, 8, 8\)"):
        assemble(tmp_path / "cohort", "test", halves, students, recipe={})
