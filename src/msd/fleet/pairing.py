"""The work of a pairs job: let a teacher's ODE, or one-step students, answer random noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from msd.conditions.partition import Partition
from msd.conditions.table import Conditions
from msd.data.pairs import PairsPlan, Solve, make_pairs
from msd.diffusion.solvers import Solver, one_step
from msd.fleet.jobs import PAIRS, Job, PairsTask, check_content, result_folder, seal_result, student_folder, student_use
from msd.fleet.progress import Progress, StopRequested
from msd.networks.folder import load_denoiser
from msd.teachers.folder import load_teacher
from msd.training.engine import Engine


def pair(job: Job, task: PairsTask, folder: Path, engine: Engine, progress: Progress) -> None:
    """Make the pairs that are missing or damaged. Raises StopRequested between two shards."""
    teacher = load_teacher(job.teacher or "", engine.device, job.guidance)
    check_content("teacher", job.teacher, teacher.hash, task.teacher)
    device, done = engine.device, 0

    def by_teacher(noise: Tensor, keys: Tensor) -> Tensor:
        solver = Solver(**task.solver or {})
        return solver(teacher.denoiser, noise.to(device), teacher.conditions[keys.to(device)])

    def on_progress(num: int, made: bool) -> None:
        nonlocal done
        done += num
        (progress if made else progress.skip)(done)
        if progress.stop and done < task.num_pairs:
            raise StopRequested

    solve = _by_students(job, task, folder, teacher.conditions, device) if task.students else by_teacher
    plan = PairsPlan(task.num_pairs, task.shard_size, task.prior, task.seed, task.hash)
    progress.begin(0, PAIRS)
    result = result_folder(folder)
    report = make_pairs(solve, teacher.denoiser.spec.noise_shape, result, plan, on_progress)
    seal_result(result, task.hash, num_pairs=report.num_pairs, kept=report.kept, made=report.made, damaged=report.damaged)


def _by_students(job: Job, task: PairsTask, folder: Path, conditions: Conditions, device: torch.device) -> Solve:
    """One routed step of the students that the job needs, in place of the teacher's many."""
    partition = Partition.from_json(task.partition, source=str(folder))
    students = [
        load_denoiser(student_folder(folder.parent / job.needs[student_use(part)]), device)
        for part in range(len(task.students))
    ]

    def solve(noise: Tensor, keys: Tensor) -> Tensor:
        owner, samples = partition.assign(keys), torch.empty_like(noise)
        for part, student in enumerate(students):
            mine = owner == part
            if mine.any():
                condition = conditions[keys[mine].to(device)]
                samples[mine] = one_step(student, noise[mine].to(device), condition, student.spec.sigma_init or 0.0).cpu()
        return samples

    return solve
