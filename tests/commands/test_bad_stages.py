"""What the stages of the whole method cannot do is one sentence with the next step, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders import UNIFORM, save_student
from command import fails
from msd.conditions.partition import Partition
from msd.fleet.jobs import seal_result
from msd.networks.facts import WEIGHTS, denoiser_hash
from msd.teachers.facts import PACKAGED

ADM = ("--set", "stages=[dm,adm]", "--set", "adm.regression.weight=0")
HALVES = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=UNIFORM)
BAD = {
    "no real images": ((*ADM, "--set", "data.source=nowhere"), "nowhere does not exist"),
    "no such tap": (
        (*ADM, "--set", "adm.tap=middle"),
        "no tap 'middle'; it has down.0, down.1, bottleneck, up.0, up.1: set adm.tap to one of these",
    ),
    "no such tap in a smaller network's row": (
        ("--set", "rows={a: {stages: [dm, adm], adm.regression.weight: 0, adm.tap: down.7}}"),
        "no tap 'down.7'; it has down.0",
    ),
    "no such size": (("--set", "student.reduce=0.1"), "give one of these shares"),
    "no such size of a row's student": (
        (
            "--set",
            "rows={a: {partition.num_parts: 1, student.reduce: 0.88}, b: {student.start: 'row:a', student.reduce: 0.9}}",
        ),
        "no configuration saves about 90% of the teacher's 19,737 parameters",
    ),
    "groups that do not divide": (
        ("--set", "network.block_out_channels=[8, 10]"),
        "norm_num_groups 4 must divide every width, and 10 it does not",
    ),
    "a head larger than the critic": (
        (
            *(*ADM, "--set", "student.critic=student", "--set", "student.reduce=0.88", "--set", "adm.head=strided"),
            *("--set", "adm.features=teacher", "--set", "adm.trains_critic=false", "--set", "adm.tap=up.0"),
        ),
        "more than the critic's 19,737; set adm.tap to a place with fewer channels, or adm.head=pooled",
    ),
    "score matching alone": (("--set", "stages=[tsm]"), "it must be the first of stages"),
    "a stage that there is not": (("--set", "stages=[dm, amd]"), "did you mean adm?"),
    "a start that there is not": (("--set", "student.start=row:lone"), "there is no row 'lone'"),
    "a critic of chance": (
        ("--set", "student.start=random", "--set", "student.critic=student"),
        "put tsm before dm in stages, or set student.critic: teacher",
    ),
}


def refused(tmp_path: Path, *arguments: object) -> str:
    """The sentence; nothing was begun for it."""
    said = fails("distill", "smoke", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    return said


@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_before_anything_is_trained(case: str, tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    assert expected in refused(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("shape", "labels", "expected"),
    [
        ((8, 8), list(range(9)), "have 9 classes, the teacher 10"),
        ((9, 9), list(range(10)), "have shape (1, 9, 9), the teacher's (1, 8, 8)"),
    ],
)
def test_images_that_are_not_the_teacher_s_are_refused(
    tmp_path: Path, shape: tuple[int, int], labels: list[int], expected: str
) -> None:
    np.savez(tmp_path / "mine.npz", images=np.zeros((len(labels), *shape), np.uint8), labels=np.array(labels))
    assert expected in refused(tmp_path, *ADM, "--set", f"data.source={tmp_path / 'mine.npz'}")


def test_a_start_of_another_teacher_or_partition_is_refused(tmp_path: Path) -> None:
    mine = denoiser_hash(PACKAGED / "digits-teacher")
    foreign = save_student(tmp_path / "foreign", HALVES, 0)
    start = ("--set", "rows={}", "--set", "student.sigma_init=2.5", "--set")
    assert "start from a student of this teacher, or set teacher.source" in refused(
        tmp_path, *start, f"student.start={foreign}"
    )
    other = save_student(tmp_path / "other", HALVES, 0, teacher=mine)
    assert "it never saw class 5, which part 1 owns; start from a student that knows the whole part" in refused(
        tmp_path, *start, f"student.start={other}"
    )
    assert "holds no student" in refused(tmp_path, *start, f"student.start={tmp_path}")


def test_a_damaged_start_is_refused_before_pairs_are_made(tmp_path: Path) -> None:
    whole = Partition.whole(UNIFORM)
    job = tmp_path / "job"
    student = save_student(job / "result" / "student", whole, 0, teacher=denoiser_hash(PACKAGED / "digits-teacher"))
    bundle, start = job / "result" / "bundle.safetensors", f"student.start={job}"
    bundle.write_bytes(b"what was handed on")
    seal_result(job / "result", "task")
    bundle.write_bytes(b"What was handed on")
    assert f"{bundle} is damaged" in refused(tmp_path, "--set", "student.sigma_init=2.5", "--set", start)
    weights = student / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    assert f"{weights} is damaged" in refused(tmp_path, "--set", "student.sigma_init=2.5", "--set", start)
