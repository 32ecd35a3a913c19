"""Teacher score matching: a student of any network becomes its teacher's denoiser, on its own conditions, and then stops."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from builders import ENGINE, materials, random_pairs, tiny_denoiser
from msd.conditions.partition import Partition
from msd.conditions.table import LabelConditions
from msd.data.images import ImageSet
from msd.data.pairs import PairSet
from msd.diffusion.denoiser import Denoiser, DenoiserSpec, EDMParameterisation, per_sample
from msd.diffusion.solvers import one_step
from msd.errors import DataError
from msd.networks.build import ToyMLP
from msd.recipe import STUDENT, DMSection, RegressionSection, TSMSection
from msd.stages.dm import DistributionMatching
from msd.stages.materials import CRITIC, Materials
from msd.stages.tsm import HELD_OUT, TeacherMatching
from msd.teachers.analytic import GaussianMixtureTeacher
from msd.teachers.folder import Teacher
from msd.training.bundle import Bundle
from msd.training.checkpoint import Checkpoints
from msd.training.loop import steps

SIDES = torch.tensor([[-1.0, 0.5], [1.0, -0.5]])
"""Means of two conditions, of which each is one Gaussian of deviation 0.3."""


class _Exact(nn.Module):
    """The raw network of which EDM's four coefficients make an exact denoiser."""

    def __init__(self, exact: GaussianMixtureTeacher):
        super().__init__()
        self.exact, self.unused = exact, nn.Parameter(torch.zeros(1))

    def forward(self, scaled: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        sigma = (4 * noise_level).exp()
        scalings = EDMParameterisation().scalings(sigma)
        x = scaled / per_sample(scalings.c_in, scaled)
        wanted = self.exact(x, sigma, condition)
        return (wanted - per_sample(scalings.c_skip, x) * x) / per_sample(scalings.c_out, x)


def gaussian(num: int = 600) -> Materials:
    """An exact teacher of two Gaussians, a random small student, and samples that the teacher could have made."""
    exact = GaussianMixtureTeacher(SIDES[:, None], torch.full((2, 1), 0.3))
    spec = DenoiserSpec(noise_shape=(2,), num_conditions=2)
    keys = torch.arange(num) % 2
    samples = SIDES[keys] + 0.3 * torch.randn(num, 2, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = Denoiser(ToyMLP(2, 2, width=32, depth=2), replace(spec, sigma_init=80.0))
    return Materials(
        ENGINE,
        seed=0,
        teacher=Denoiser(_Exact(exact), spec),
        start=start,
        conditions=LabelConditions(2),
        partition=Partition.whole((0.5, 0.5)),
        pairs=PairSet(torch.zeros_like(samples), keys, samples),
    )


def test_a_random_student_becomes_an_analytic_teacher() -> None:
    """At the highest noise level the exact denoiser is the mean: so is the student's one step after TSM, and not before."""
    given = gaussian()
    stage = TeacherMatching(TSMSection(num_updates=500, batch_size=128, ema_decay=0.98, look_every=100), given)
    records = [record for _, record in steps(stage, ENGINE, 0)]
    looks = [float(record[f"{STUDENT}/{HELD_OUT}"]) for record in records if f"{STUDENT}/{HELD_OUT}" in record]
    assert looks[-1] < 0.05 * looks[0]
    student, teacher = stage.roles[STUDENT].result(), given.need_teacher()
    noise, keys = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)), torch.arange(200) % 2
    for level in (0.05, 0.3, 1.0):
        x = SIDES[keys] + 0.3 * noise.flip(0) + level * noise
        sigma = torch.full((200,), level)
        error = (student(x, sigma, keys) - teacher(x, sigma, keys)).square().mean().sqrt()
        assert error < 0.08, level
    begun = one_step(given.new_student(), noise, keys, 80.0)
    matched = one_step(student, noise, keys, 2.0)
    assert (matched - SIDES[keys]).square().mean() < 0.1 < (begun - SIDES[keys]).square().mean()


def test_it_ends_on_a_plateau_of_samples_that_no_update_sees() -> None:
    """Where no look halves the best loss before it, the stage ends after `patience` of them."""
    settings = TSMSection(num_updates=400, batch_size=8, learning_rate=1e-5, look_every=10, patience=3, improvement=0.5)
    stage = TeacherMatching(settings, gaussian())
    assert [step for step, _ in steps(stage, ENGINE, 0)][-1] == 31
    endless = TeacherMatching(settings.model_copy(update={"held_out": 0.0, "num_updates": 60}), gaussian())
    records = [record for _, record in steps(endless, ENGINE, 0)]
    assert len(records) == 60
    assert not any(HELD_OUT in name for record in records for name in record)


def test_in_micro_batches_the_whole_batch_is_descended_and_looked_at_once_a_step() -> None:
    settings = TSMSection(num_updates=4, batch_size=16, look_every=2)
    stages = [TeacherMatching(settings, gaussian()) for _ in range(2)]
    engines = (ENGINE, replace(ENGINE, num_micro_batches=4))
    found = [[record for _, record in steps(one, engine, 0)] for one, engine in zip(stages, engines, strict=True)]
    assert [f"{STUDENT}/{HELD_OUT}" in record for record in found[1]] == [True, False, True, False]
    for whole, parted in zip(*found, strict=True):
        torch.testing.assert_close(parted, whole, rtol=1e-4, atol=1e-5)
    assert stages[0].state_dict() == pytest.approx(stages[1].state_dict(), rel=1e-4)


def test_it_sees_its_part_only(teacher: Teacher, halves: Partition) -> None:
    stage = TeacherMatching(
        TSMSection(num_updates=10, batch_size=8), materials(teacher, halves, part=1, pairs=random_pairs())
    )
    seen: Counter[int] = Counter()
    teacher.denoiser.register_forward_pre_hook(lambda module, inputs: seen.update(inputs[2].tolist()))
    for _ in steps(stage, ENGINE, 0):
        pass
    assert set(seen) == set(halves.parts[1])


def test_real_images_are_an_alternative(teacher: Teacher, halves: Partition) -> None:
    """The same stage on pictures needs no pairs, and refuses pictures of other classes, or a class without any."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images = ImageSet("noise", pixels, torch.arange(40) % 10, 10, "none")
    given = replace(materials(teacher, halves, part=1), images=images)
    settings = TSMSection(num_updates=5, batch_size=8, samples="images")
    for _ in steps(TeacherMatching(settings, given), ENGINE, 0):
        pass
    with pytest.raises(DataError, match="needs real images"):
        TeacherMatching(settings, replace(given, images=None))
    few = ImageSet("few", pixels[:7], torch.arange(7), 10, "none")
    with pytest.raises(DataError, match=r"part 1 has no real images of 7, 9; add some to few"):
        TeacherMatching(settings, replace(given, images=few))
    with pytest.raises(DataError, match="have 3 classes, the teacher 10"):
        TeacherMatching(settings, replace(given, images=ImageSet("other", pixels[:6], torch.arange(6) % 3, 3, "none")))


@pytest.mark.parametrize("stop_after", [1, 12, 25])
def test_stopped_and_resumed_equals_uninterrupted(
    teacher: Teacher, halves: Partition, tmp_path: Path, stop_after: int
) -> None:
    """Also the plateau: both end after the same step, with the same bits."""
    settings = TSMSection(num_updates=60, batch_size=4, learning_rate=1e-5, look_every=5, patience=4, improvement=0.5)

    def stage() -> TeacherMatching:
        given = replace(materials(teacher, halves, pairs=random_pairs(200)), start=tiny_denoiser(9, sigma_init=80.0))
        return TeacherMatching(settings, given)

    whole = stage()
    last = [step for step, _ in steps(whole, ENGINE, 3)][-1]
    checkpoints, first, second = Checkpoints(tmp_path / "checkpoints", {"task": "one"}), stage(), stage()
    for step, _ in steps(first, ENGINE, 3):
        if step == stop_after:
            checkpoints.save(step, first)
            break
    start = checkpoints.restore(second)
    assert [step for step, _ in steps(second, ENGINE, 3, start=start)][-1] == last < 60
    for one, other in zip(whole.roles[STUDENT].module.parameters(), second.roles[STUDENT].module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_dm_goes_on_from_its_raw_weights(teacher: Teacher, halves: Partition) -> None:
    """The seam: DM's student begins as TSM left it, its critic as the teacher, or as the student where that is asked for."""
    given = replace(materials(teacher, halves, pairs=random_pairs()), start=tiny_denoiser(9, sigma_init=80.0))
    stage = TeacherMatching(TSMSection(num_updates=5, batch_size=4), given)
    for _ in steps(stage, ENGINE, 0):
        pass
    handed = Bundle({name: role.weights() for name, role in stage.roles.items()})
    settings = DMSection(num_updates=1, batch_size=2, regression=RegressionSection(batch_size=2))
    for critic, like in (("teacher", teacher.denoiser), ("student", stage.roles[STUDENT].module)):
        after = DistributionMatching(settings, replace(given, bundle=handed, critic=critic))  # pyright: ignore[reportArgumentType]
        for name, value in after.roles[STUDENT].module.state_dict().items():
            assert torch.equal(value, handed.roles[STUDENT].raw[name])
        for name, value in after.roles[CRITIC].module.state_dict().items():
            assert torch.equal(value, like.state_dict()[name])
