"""Multi-Student Distillation in two dimensions: the whole method in one file, against a teacher whose score is exact.

K one-step students own 8 / K of the 8 classes each, for 700 updates; 80 s on one core. Sliced Wasserstein distance to exact
samples (mean of the classes; two exact sets: 0.007; relative to K = 1), ranges of 3 seeds on 2 machines and 1 on a third:
    K = 1  0.030 to 0.035                     K = 4  0.022 to 0.024 (0.65 to 0.81)
    K = 2  0.026 to 0.034 (0.80 to 1.06)      K = 8  0.018 to 0.020 (0.55 to 0.69)
    K = 1 with 2800 updates, as many as K = 4 has in total: 0.020 to 0.023
At equal updates each a cohort is better (not one K = 2, where a student lost an arm of its pinwheel), and its students can
train at the same time. At equal updates in total one student is level or slightly better.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.diffusion.draw import Draw
from msd.diffusion.noise import KarrasLaw, LogNormalLaw
from msd.diffusion.solvers import Solver, one_step
from msd.networks.build import ToyMLP
from msd.objectives.denoising import denoising_loss
from msd.objectives.dm import dm_gradient, dm_loss
from msd.objectives.regression import regression_loss
from msd.teachers.analytic import GaussianMixtureTeacher as Teacher

# Neighbours are alike, so a contiguous split puts like with like: arms, closed curves, squares, open arcs.
CLASSES = ("spiral", "pinwheel", "rings", "flower", "checkerboard", "grid", "moons", "sine")
STUDENT_SIZE, CRITIC_SIZE = (32, 2), (96, 3)  # width, depth: small enough a student that eight classes crowd it
SIGMA_DATA, SIGMA_INIT = 0.5, 80.0  # the classes' deviation; the one noise level that a student starts from
TRAINING_LAW = LogNormalLaw(mean=-1.2, deviation=1.2)  # noise levels that denoisers (start, critic) learn from: EDM's
MATCHING_LAW = KarrasLaw(sigma_min=0.03, sigma_max=2.0)  # where student and teacher are compared: the scales of a shape
BATCH, PAIRS_PER_CLASS, EMA_DECAY = 256, 1500, 0.98
STUDENT_RATE, CRITIC_RATE, REGRESSION_WEIGHT = 5e-3, 2e-3, 0.25  # the weight is DMD's
Pairs = tuple[Tensor, Tensor, Tensor]  # noise [P, 2], condition [P], the teacher's sample [P, 2]


def make_teacher() -> Teacher:
    """Eight shapes of equal spread around the origin, each traced by 72 small Gaussians."""
    along, arm = torch.arange(72) / 72, torch.arange(72) % 4  # place along a curve in [0, 1); one arm of four
    turn, nine = 2 * math.pi * along, torch.tensor([i + 1j * j for i in range(3) for j in range(3)])
    circle = torch.exp(1j * turn)  # points of the plane are complex numbers here
    black = torch.tensor([i + 1j * j for i in range(4) for j in range(4) if (i + j) % 2 == 0])
    shapes = {
        "spiral": (0.1 + along.sqrt()) * torch.exp(3j * math.pi * along.sqrt()),
        "pinwheel": (0.15 + along) * torch.exp(1j * (math.pi / 2 * arm + 1.5 * along)),
        "rings": torch.where(arm == 0, 0.4, 1.0) * circle,
        "flower": (1 + 0.5 * (5 * turn).cos()) * circle,
        "checkerboard": (black[:, None] + nine / 3).flatten(),
        "grid": nine.repeat_interleave(8) + 0.22 * circle**9,
        "moons": (-1.0) ** arm * (torch.exp(1j * math.pi * along) - (0.5 + 0.25j)),
        "sine": 4 * along - 2 + 1j * (2 * turn).sin(),
    }
    means = torch.view_as_real(torch.stack([shapes[name] for name in CLASSES]))  # [C, M, 2]
    means = means - means.mean(1, keepdim=True)
    means = means * SIGMA_DATA / means.square().mean((1, 2), keepdim=True).sqrt()
    return Teacher(means, torch.full(means.shape[:2], 0.05))


def add_noise(x: Tensor, sigma: Tensor, draw: Draw) -> Tensor:
    return x + sigma[:, None] * draw.normal(*x.shape)


class Descent:
    """Adam with a cosine decay. No momentum (beta1 = 0), as student and critic chase each other."""

    def __init__(self, module: nn.Module, rate: float, updates: int):
        self.adam = torch.optim.Adam(module.parameters(), lr=rate, betas=(0.0, 0.999), fused=True)
        self.decay = torch.optim.lr_scheduler.CosineAnnealingLR(self.adam, updates, eta_min=0.05 * rate)

    def step(self, loss: Tensor) -> None:
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.decay.step()


def fit_start(teacher: Teacher, size: tuple[int, int], updates: int, seed: int, sigma_init: float = SIGMA_INIT) -> Denoiser:
    """Teacher score matching: regress a network on the teacher's denoiser, as there are no weights to copy from it."""
    start = Denoiser(ToyMLP(2, len(CLASSES), *size), DenoiserSpec((2,), len(CLASSES), sigma_init=sigma_init))
    descent = Descent(start, 3e-3, updates)
    for step in range(updates):
        draw = Draw(seed, f"start of {size}", step)  # all randomness of a step: a function of seed, place and step
        condition, sigma = draw.indices(len(CLASSES), 2 * BATCH, replacement=True), TRAINING_LAW.sample(2 * BATCH, draw)
        noised = add_noise(teacher.sample(condition, draw), sigma, draw)
        target = teacher(noised, sigma, condition)
        descent.step(denoising_loss(start(noised, sigma, condition), target, sigma, SIGMA_DATA))
    return start


def distill(
    teacher: Teacher, starts: list[Denoiser], pairs: Pairs, partition: Partition, part: int, updates: int, seed: int
) -> Denoiser:
    """One student, trained alone: it never sees another student's weights, losses or samples."""
    student, critic = (start.copy() for start in starts)
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    student_descent, critic_descent = Descent(student, STUDENT_RATE, updates), Descent(critic, CRITIC_RATE, updates)
    for step in range(updates):
        draw = Draw(seed, f"student {part} of {partition.num_parts}", step)
        # Two streams of conditions: matching draws from the student's own part, regression from the WHOLE pair set.
        condition, noise = partition.sample(part, BATCH, draw), draw.normal(BATCH, 2)
        chosen = draw.indices(len(pairs[0]), BATCH, replacement=True)
        pair_noise, pair_condition, pair_sample = (column[chosen] for column in pairs)

        # The student moves its samples to where the teacher finds them likelier than the critic does.
        fake = one_step(student, noise, condition, SIGMA_INIT)
        with torch.no_grad():
            sigma = MATCHING_LAW.sample(BATCH, draw)
            noised = add_noise(fake, sigma, draw)
            gradient = dm_gradient(fake, teacher(noised, sigma, condition), critic(noised, sigma, condition))
        regression = regression_loss(one_step(student, pair_noise, pair_condition, SIGMA_INIT), pair_sample)
        student_descent.step(dm_loss(fake, gradient) + REGRESSION_WEIGHT * regression)

        # The critic is a denoiser of whatever the student makes at present, so it has to keep learning.
        fake, sigma = fake.detach(), TRAINING_LAW.sample(BATCH, draw)
        estimate = critic(add_noise(fake, sigma, draw), sigma, condition)
        critic_descent.step(denoising_loss(estimate, fake, sigma, SIGMA_DATA))
        average.update_parameters(student)
    return average.module


@torch.no_grad()
def generate(students: list[Denoiser], partition: Partition, noise: Tensor, condition: Tensor) -> Tensor:
    """Route each condition to the student that owns it: one network evaluation a sample, however many students."""
    samples, owner = torch.empty_like(noise), partition.assign(condition)
    for part, student in enumerate(students):
        mine = owner == part
        samples[mine] = one_step(student, noise[mine], condition[mine], student.spec.sigma_init)
    return samples


def sliced_wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """Sliced 2-Wasserstein distance per class, `[C]`, of two sample sets `[C, N, 2]`, over 32 even directions."""
    directions = torch.view_as_real(torch.exp(1j * math.pi * torch.arange(32) / 32)).T
    return ((first @ directions).sort(1).values - (second @ directions).sort(1).values).square().mean((1, 2)).sqrt()


def draw_rows(rows: list[tuple[str, Tensor, list[str], list[str]]], out: Path) -> None:
    """Rows of (label, samples `[C, N, 2]`, a title per class, a colour per class) as a grid of point clouds."""
    figure = Figure(figsize=(2 * len(CLASSES), 2.2 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(CLASSES), sharex=True, sharey=True)
    for line, (label, samples, titles, colours) in zip(panels, rows, strict=True):
        line[0].set_ylabel(label, fontsize=13)
        for panel, points, title, colour in zip(line, samples, titles, colours, strict=True):
            panel.scatter(*points[:2000].T, s=2, color=colour, linewidths=0)
            panel.set_title(title, fontsize=13, color=colour)
            panel.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), xticks=[], yticks=[], aspect="equal")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="distil an analytic 2-D teacher into K = 1, 2, 4, 8 one-step students")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=700, help="updates of each student, whatever K is (700)")
    parser.add_argument("--out", type=Path, default=Path("runs/toy2d/toy2d.png"), help="where the picture goes")
    options = parser.parse_args()
    if options.updates < 1:
        parser.error(f"--updates {options.updates} trains nothing; give 1 or more")
    torch.set_num_threads(1)  # the tensors are small: a second thread would mostly wait
    torch.manual_seed(options.seed)  # of the networks' initial weights; all else is drawn from a Draw
    seed, teacher, began = options.seed, make_teacher(), time.perf_counter()
    # Pairs of noise and the teacher's own sample from it, of all classes: solved once, shared by every student.
    condition = torch.arange(len(CLASSES)).repeat_interleave(PAIRS_PER_CLASS)
    noise = Draw(seed, "pairs").normal(len(condition), 2)
    pairs = noise, condition, Solver("heun", num_steps=32, sigma_min=0.01)(teacher, noise, condition)
    # One start for all students and one for all critics, whose networks need not be as small.
    starts = [fit_start(teacher, size, 2 * options.updates, seed) for size in (STUDENT_SIZE, CRITIC_SIZE)]

    condition, draw = torch.arange(len(CLASSES)).repeat_interleave(20_000), Draw(seed, "evaluation")
    noise = draw.normal(len(condition), 2)
    truth, again = (teacher.sample(condition, draw).view(len(CLASSES), -1, 2) for _ in range(2))
    rows = [("teacher", truth, list(CLASSES), ["0.3"] * len(CLASSES))]
    print(f"sliced Wasserstein, mean of the classes; two exact sets: {sliced_wasserstein(truth, again).mean():.4f}")
    print("students  updates each  in total  distance   to single  seconds")
    single = 0.0
    for num_students, updates in [*((k, options.updates) for k in (1, 2, 4, 8)), (1, 4 * options.updates)]:
        partition = make_partition("contiguous", SplitRequest(len(CLASSES), num_students), (1 / 8,) * 8)
        students = [distill(teacher, starts, pairs, partition, part, updates, seed) for part in range(num_students)]
        samples = generate(students, partition, noise, condition).view_as(truth)
        distance, seconds = sliced_wasserstein(samples, truth), time.perf_counter() - began
        mean = float(distance.mean())
        single, total = single or mean, num_students * updates  # the first row is the single student
        print(f"{num_students:8} {updates:13} {total:9} {mean:9.4f} {mean / single:11.2f} {seconds:8.0f}", flush=True)
        colours = [f"C{part}" for part in partition.assign(range(len(CLASSES))).tolist()]
        titles = [f"{value:.3f}" for value in distance]
        rows.append((f"K = {num_students}, {updates} updates\nmean {mean:.4f}", samples, titles, colours))
    draw_rows(rows, options.out)


if __name__ == "__main__":
    main()
