"""The delivered thing: the router is the partition, order and noise are the user's, and misfits refuse to load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import msd
from builders import UNIFORM, save_student, tiny_denoiser
from msd.cohort.manifest import Manifest, assemble, read_manifest
from msd.conditions.partition import Partition
from msd.diffusion.solvers import one_step
from msd.errors import ConditionError, PartitionError, WeightsError
from msd.networks.facts import WEIGHTS, read_facts
from msd.networks.folder import load_denoiser


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


def test_an_empty_request_is_an_empty_answer(cohort: Manifest) -> None:
    assert msd.Cohort.load(cohort.folder).generate([], seed=0).shape == (0, 1, 8, 8)


def test_a_label_outside_the_partition_is_named(cohort: Manifest) -> None:
    with pytest.raises(PartitionError, match="class 10 is outside the partition; classes are 0 to 9"):
        msd.Cohort.load(cohort.folder).generate([3, 10], seed=0)


def test_noise_of_a_wrong_shape_is_refused(cohort: Manifest) -> None:
    with pytest.raises(ConditionError, match=r"noise has shape \(2, 1, 8, 8\), not \(1, 1, 8, 8\)"):
        msd.Cohort.load(cohort.folder).generate([3], noise=torch.zeros(2, 1, 8, 8))


def test_students_and_router_of_two_partitions_refuse_to_load(cohort: Manifest) -> None:
    manifest = cohort.folder / "cohort.json"
    value = json.loads(manifest.read_text())
    other = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=UNIFORM)
    manifest.write_text(json.dumps(value | {"partition": other.to_json()}))
    with pytest.raises(WeightsError, match="students and router must come from one run"):
        msd.Cohort.load(cohort.folder)


def test_swapped_students_are_refused(tmp_path: Path, halves: Partition) -> None:
    students = [save_student(tmp_path / f"student-{part}", halves, part) for part in (1, 0)]
    with pytest.raises(WeightsError, match="trained for part 1"):
        assemble(tmp_path / "cohort", "test", halves, students, recipe={})
    assert not (tmp_path / "cohort").exists()
    assert not list(tmp_path.glob(".*"))


def test_damaged_weights_are_named(cohort: Manifest) -> None:
    weights = cohort.student(1) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([0], seed=0)
    with pytest.raises(WeightsError, match="is damaged: its checksum is not the recorded one"):
        loaded.generate([1], seed=0)


def test_a_missing_student_or_manifest_is_named(cohort: Manifest, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        msd.Cohort.load(tmp_path / "nowhere")
    (cohort.student(1) / "denoiser.json").unlink()
    with pytest.raises(WeightsError, match=r"denoiser.json .* does not exist"):
        msd.Cohort.load(cohort.folder)


def test_assembling_again_replaces_the_old_cohort(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    again = assemble(cohort.folder, "again", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert read_manifest(cohort.folder).name == again.name == "again"


def test_how_to_sample_is_saved_with_the_weights(cohort: Manifest) -> None:
    """A student that needs anything else told to it to sample right is a bug (DESIGN 5.2)."""
    facts = read_facts(cohort.student(0))
    assert facts["spec"]["sigma_init"] == 2.5
    assert facts["spec"]["parameterisation"] == {"kind": "edm", "sigma_data": 0.5}
    assert load_denoiser(cohort.student(0)).spec == tiny_denoiser(0, sigma_init=2.5).spec
