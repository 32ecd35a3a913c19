"""Small real things that several tests share."""

from __future__ import annotations

import os

# Before torch is imported: a test process has one thread, and waits quietly.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import hypothesis
import pytest
import torch

from builders import UNIFORM, save_student, save_teacher
from msd.cohort.manifest import Manifest, assemble
from msd.conditions.partition import Partition
from msd.teachers.folder import Teacher

torch.set_num_threads(1)
# How long an example takes says nothing where machines are shared. The same examples every time, so that a change is judged
# by itself; HYPOTHESIS_PROFILE=explore looks at others, as one does before a release.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    return save_teacher(tmp_path / "teacher")


@pytest.fixture
def halves() -> Partition:
    return Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM, method="file")


@pytest.fixture
def cohort(tmp_path: Path, halves: Partition) -> Manifest:
    students = [save_student(tmp_path / f"student-{part}", halves, part) for part in range(2)]
    return assemble(tmp_path / "cohort", "test", halves, students, recipe={})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: where two workers share the rest, none waits for it at the end."""
    items.sort(key=lambda item: "test_readme" not in item.nodeid)
