"""What a teacher is, read without torch: the same as what is then loaded, and students refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from builders import UNIFORM, save_student, tiny_denoiser
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.errors import WeightsError
from msd.networks.build import LabelledUNet, build_unet, unet_config
from msd.networks.facts import FACTS, WEIGHTS, denoiser_hash
from msd.networks.folder import save_denoiser
from msd.recipe import NetworkSection
from msd.teachers.facts import read_teacher
from msd.teachers.folder import Teacher, load_teacher


def test_facts_are_those_of_the_denoiser(teacher: Teacher) -> None:
    facts, spec = teacher.facts, teacher.denoiser.spec
    assert (facts.num_conditions, facts.noise_shape, facts.licence) == (10, spec.noise_shape, spec.licence)
    assert facts.prior == UNIFORM
    assert facts.hash == teacher.hash == denoiser_hash(facts.folder)


def test_embeddings_are_the_networks_own(teacher: Teacher) -> None:
    """`[num_conditions, D]`, straight from the file and through the table of conditions."""
    assert isinstance(teacher.denoiser.network, LabelledUNet)
    wanted = teacher.denoiser.network.model.class_embedding.weight.detach().numpy()
    for found in (teacher.facts.embeddings(), teacher.conditions.embeddings):
        assert found is not None
        np.testing.assert_array_equal(found, wanted)


def test_labels_are_their_own_conditions(teacher: Teacher) -> None:
    keys = torch.tensor([3, 1])
    assert teacher.conditions[keys] is keys
    assert teacher.conditions.num == 10
    assert teacher.conditions.null is None


def test_facts_are_read_without_torch() -> None:
    """A plan asks for them, and must not take seconds."""
    code = (
        "import sys; from msd.teachers.facts import read_teacher\n"
        "facts = read_teacher('packaged:digits'); assert facts.embeddings().shape[0] == facts.num_conditions == 10\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_packaged_teacher_loads() -> None:
    teacher = load_teacher("packaged:digits")
    assert teacher.prior == teacher.facts.prior
    assert sum(teacher.prior) == pytest.approx(1)
    assert teacher.denoiser.spec.pixel_shape == (1, 8, 8)


def test_an_unrecorded_prior_is_uniform(tmp_path: Path) -> None:
    save_denoiser(tiny_denoiser(0), tmp_path)
    assert read_teacher(str(tmp_path)).prior == pytest.approx(UNIFORM)


def test_a_teacher_without_class_embeddings_can_still_be_divided(tmp_path: Path) -> None:
    """Its facts say None, and splits that need none never ask."""
    config = unet_config((1, 8, 8), 10, NetworkSection(block_out_channels=(8, 16), norm_num_groups=4).model_dump())
    denoiser = tiny_denoiser(0)
    denoiser.network = build_unet(config | {"num_class_embeds": None})
    save_denoiser(denoiser, tmp_path)
    facts = read_teacher(str(tmp_path))
    assert facts.embeddings() is None
    request = SplitRequest(facts.num_conditions, 2, embeddings=facts.embeddings)
    assert make_partition("contiguous", request, facts.prior).num_parts == 2


def test_a_student_cannot_teach(tmp_path: Path) -> None:
    student = save_student(tmp_path / "student", Partition.whole(UNIFORM), 0)
    for read in (read_teacher, load_teacher):
        with pytest.raises(WeightsError, match=r"is a one-step student \(its sigma_init is 2\.5\).*; give the teacher"):
            read(str(student))


def test_what_is_no_teacher_is_named(tmp_path: Path, teacher: Teacher) -> None:
    with pytest.raises(WeightsError, match="there is no packaged teacher 'cats'; known: packaged:digits, packaged:fashion"):
        read_teacher("packaged:cats")
    with pytest.raises(WeightsError, match=r"the teacher .*nowhere is not there; put the file or folder there"):
        read_teacher(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"is not a teacher's folder \(no denoiser\.json\)"):
        read_teacher(tmp_path)
    facts = teacher.facts.folder / FACTS
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"prior": [0.5, 0.5]}))
    with pytest.raises(WeightsError, match="has a prior of 2 values for 10 conditions"):
        read_teacher(teacher.source)


def test_a_damaged_teacher_is_refused_before_anything_is_planned(teacher: Teacher) -> None:
    weights = teacher.facts.folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="is damaged: its checksum is not the recorded one"):
        read_teacher(teacher.source)
