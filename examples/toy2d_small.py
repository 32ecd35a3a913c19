"""Small students in two dimensions: teacher score matching (TSM) and adversarial matching (ADM), which toy2d leaves out.

Sliced Wasserstein distance (two exact sets: 0.014 to 0.016), percent of the Gaussians missed; ranges of 3 seeds on one
machine, 400 updates of DM; ADM and "more" (ADM without its GAN) 200 on top, "longer" 400. About 100 s on one core:
                            DM                  more or longer          ADM
    K = 1, random     0.077-0.084, 10-13    0.063-0.072, 10-14
           TSM        0.059-0.064,  7-8     0.055-0.057,  6-7     0.056-0.059, 5-6
           pairs      0.056-0.061,  7-8     0.051-0.055,  5-6     0.052-0.055, 4-6
           forgetful  0.147-0.157, 22-27    0.148-0.151, 22-24    0.077-0.088, 8-12
    K = 4, random     0.054-0.065,  8-9     0.043-0.055,  4-5
           TSM        0.047-0.050,  2-3     0.039-0.041,  1-2     0.036-0.040, 2
           pairs      0.045-0.047,  2-4     0.037-0.042,  1-2     0.034-0.040, 1-2
           forgetful  0.147-0.156, 19-22    0.148-0.151, 19       0.067-0.073, 3-5
TSM has 0.71 to 0.87 of a random start's distance at equal updates; twice the updates do for a random start nearly the same.
ADM gains nothing for K = 1 (1.00 to 1.07 of "more"), little for K = 4 (0.92 to 0.98); it halves the error (0.45 to 0.59) of
a forgetful teacher, which lacks a quarter of each class: real samples tell what it does not know (DMD2, sec. 4.3).
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import toy2d
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.diffusion.denoiser import Denoiser
from msd.diffusion.draw import Draw
from msd.diffusion.solvers import Solver, one_step
from msd.networks.heads import new_head
from msd.networks.places import BOTTLENECK
from msd.networks.taps import Tap
from msd.objectives.adversarial import accuracy, discriminator_loss, generator_loss
from msd.objectives.denoising import denoising_loss
from msd.objectives.dm import dm_gradient, dm_loss
from msd.objectives.regression import regression_loss
from toy2d import BATCH, CLASSES, CRITIC_SIZE, MATCHING_LAW, TRAINING_LAW, Descent, Pairs, Teacher, add_noise, generate

STUDENT_SIZE = (16, 1)  # width, depth: 866 parameters, 3 % of the critic's, which is as large as a teacher would be
SIGMA_INIT = 2.5  # not toy2d's 80, where the best estimate is a class's mean: a TSM start would put all samples there
STUDENT_RATE, CRITIC_RATE, GAN_WEIGHT = 2e-3, 2e-3, 3.0  # the GAN then pulls samples some times as hard as matching does


class Roles(NamedTuple):
    """What a stage hands on: raw weights, from which the next one goes on, and the average, which is delivered."""

    teacher: Teacher
    student: Denoiser
    critic: Denoiser
    average: Denoiser
    guessed: float = 0.0  # share of samples that the discriminator called rightly real or not, over the last half


class Row(NamedTuple):
    """A line of the table: one more stage for the students of another line, or for a start."""

    start: str
    pairs: bool = False
    turns: int = 1  # of the critic for one of the student: DMD2's two time scales, where it is more than one
    gan: bool = False


ROWS = {  # "more" is what ADM has to beat: as many updates with the same turns, without the GAN
    "random, DM": Row("random"),
    "random, DM longer": Row("random, DM"),  # TSM costs about as much as one or two students' DM, once for all
    "TSM, DM": Row("TSM"),
    "TSM, DM, more": Row("TSM, DM", turns=2),
    "TSM, DM, ADM": Row("TSM, DM", turns=2, gan=True),
    "pairs, DM": Row("TSM", pairs=True),
    "pairs, DM, more": Row("pairs, DM", pairs=True, turns=2),
    "pairs, DM, ADM": Row("pairs, DM", pairs=True, turns=2, gan=True),
    "forgetful, DM": Row("forgetful"),
    "forgetful, DM, more": Row("forgetful, DM", turns=2),
    "forgetful, DM, ADM": Row("forgetful, DM", turns=2, gan=True),
}


class Discriminator(nn.Module):
    """A small head on what the critic makes of a noised sample, as in DMD2: log odds that the sample is real."""

    def __init__(self, critic: Denoiser, seed: int):
        super().__init__()
        self.critic, self.head = critic, new_head(CRITIC_SIZE[:1], critic, "strided", seed)

    def forward(self, samples: Tensor, condition: Tensor, draw: Draw) -> Tensor:
        sigma = MATCHING_LAW.sample(len(samples), draw)  # noised, real and generated overlap, and gradients stay useful
        tap = Tap(self.critic, BOTTLENECK)
        return self.head(tap(self.critic, add_noise(samples, sigma, draw), sigma, condition)[1], condition)


def fit(teacher: Teacher, updates: int, seed: int) -> Roles:
    """TSM: lambda(sigma) |D_student(x + sigma n) - D_teacher(x + sigma n)|^2 at all sigma (MSD, sec. 4.3, eq. 8-9)."""
    # The critic's makes it the copy of the teacher that DMD starts from: these teachers have no weights to be copied.
    student, critic = (toy2d.fit_start(teacher, size, updates, seed, SIGMA_INIT) for size in (STUDENT_SIZE, CRITIC_SIZE))
    return Roles(teacher, student, critic, student)


def match(
    start: Roles, real: Teacher, pairs: Pairs, row: Row, partition: Partition, part: int, updates: int, seed: int
) -> Roles:
    """One student through one stage, DM or ADM: on from the raw student and critic of `start`, `real` being the data."""
    teacher, student, critic = start.teacher, start.student.copy(), start.critic.copy()
    discriminator, guessed = Discriminator(critic, seed), []
    average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(toy2d.EMA_DECAY))
    descent = Descent(student, STUDENT_RATE, updates)
    guide_descent = Descent(discriminator, CRITIC_RATE, updates * row.turns)  # the critic is inside
    for step in range(updates):
        draw = Draw(seed, f"{row.start}, student {part} of {partition.num_parts}", step)
        for turn in range(row.turns):
            condition = partition.sample(part, BATCH, draw)
            fake = one_step(student, draw.normal(BATCH, 2), condition, SIGMA_INIT)

            if turn == 0:
                with torch.no_grad():
                    sigma = MATCHING_LAW.sample(BATCH, draw)
                    noised = add_noise(fake, sigma, draw)
                    gradient = dm_gradient(fake, teacher(noised, sigma, condition), critic(noised, sigma, condition))
                loss = dm_loss(fake, gradient)
                if row.pairs:  # of all classes, as in toy2d
                    chosen = draw.indices(len(pairs[0]), BATCH, replacement=True)
                    pair_noise, pair_condition, pair_sample = (column[chosen] for column in pairs)
                    answer = one_step(student, pair_noise, pair_condition, SIGMA_INIT)
                    loss = loss + toy2d.REGRESSION_WEIGHT * regression_loss(answer, pair_sample)
                if row.gan:
                    loss = loss + GAN_WEIGHT * generator_loss(discriminator(fake, condition, draw))
                descent.step(loss)  # what it leaves on critic and head, their own turn clears
                average.update_parameters(student)

            fake, sigma = fake.detach(), TRAINING_LAW.sample(BATCH, draw)
            estimate = critic(add_noise(fake, sigma, draw), sigma, condition)
            loss = denoising_loss(estimate, fake, sigma, toy2d.SIGMA_DATA)
            if row.gan:
                # Real samples of the part's own classes only: what the others look like is no business of this student.
                real_condition = partition.sample(part, BATCH, draw)
                shown = torch.cat([real.sample(real_condition, draw), fake])
                real_logits, fake_logits = discriminator(shown, torch.cat([real_condition, condition]), draw).split(BATCH)
                loss = loss + discriminator_loss(real_logits, fake_logits)
                guessed.append((accuracy(real_logits, True) + accuracy(fake_logits, False)) / 2)
            guide_descent.step(loss)
    last = guessed[len(guessed) // 2 :]
    return Roles(teacher, student, critic, average.module, float(torch.stack(last).mean()) if last else 0.0)


def found(samples: Tensor, truth: Tensor, teacher: Teacher) -> Tensor:
    """Share `[C]` of each class's Gaussians that get at least a quarter of their due, of sets `[C, N, 2]`."""
    nearest = [torch.cdist(points, teacher.means).argmin(2) for points in (samples, truth)]
    num = [torch.stack([row.bincount(minlength=teacher.means.shape[1]) for row in each]) for each in nearest]
    return (num[0] >= num[1] / 4).float().mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="distil an analytic 2-D teacher into small students: TSM, DM, ADM")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=400, help="DM updates of each student, whatever K is (400)")
    parser.add_argument("--out", type=Path, default=Path("runs/toy2d/toy2d_small.png"), help="where the picture goes")
    options = parser.parse_args()
    if options.updates < 2:
        parser.error(f"--updates {options.updates} leaves ADM, which takes half as many, nothing; give 2 or more")
    torch.set_num_threads(1)  # the tensors are small: a second thread would mostly wait
    torch.manual_seed(options.seed)  # of the networks' initial weights; all else is drawn from a Draw
    seed, teacher, began = options.seed, toy2d.make_teacher(), time.perf_counter()
    condition = torch.arange(len(CLASSES)).repeat_interleave(500)  # pairs, for the rows that have them
    noise = Draw(seed, "pairs").normal(len(condition), 2)
    pairs = noise, condition, Solver("heun", num_steps=32, sigma_min=0.01)(teacher, noise, condition)
    # A second teacher has never learned a quarter of each class, where it has the next quarter twice.
    forgetful = Teacher(torch.cat([teacher.means[:, 18:36], teacher.means[:, 18:]], 1), teacher.deviations)
    starts = {name: fit(of, 3 * options.updates, seed) for name, of in (("TSM", teacher), ("forgetful", forgetful))}
    starts["random"] = fit(teacher, 0, seed)._replace(critic=starts["TSM"].critic)  # the teacher can be copied

    condition, draw = torch.arange(len(CLASSES)).repeat_interleave(6_000), Draw(seed, "evaluation")
    noise = draw.normal(len(condition), 2)
    truth, again = (teacher.sample(condition, draw).view(len(CLASSES), -1, 2) for _ in range(2))
    print(f"sliced Wasserstein, mean of the classes; two exact sets: {toy2d.sliced_wasserstein(truth, again).mean():.4f}")
    print("students  stages               distance  missing  discriminator  seconds")
    for num_students in (1, 4):
        partition = make_partition("contiguous", SplitRequest(len(CLASSES), num_students), (1 / 8,) * 8)
        colours = [f"C{part}" for part in partition.assign(range(len(CLASSES))).tolist()]
        pictures = [(f"teacher, K = {num_students}", truth, list(CLASSES), ["0.3"] * len(CLASSES))]
        done = {name: [roles] * num_students for name, roles in starts.items()}
        for name, row in ROWS.items():
            done[name] = [
                match(start, teacher, pairs, row, partition, part, options.updates // row.turns, seed)
                for part, start in enumerate(done[row.start])
            ]
            samples = generate([roles.average for roles in done[name]], partition, noise, condition).view_as(truth)
            distance, missing = toy2d.sliced_wasserstein(samples, truth), 1 - float(found(samples, truth, teacher).mean())
            mean, seconds = float(distance.mean()), time.perf_counter() - began
            guessed = f"{sum(roles.guessed for roles in done[name]) / num_students:.2f}" if row.gan else ""
            print(f"{num_students:8}  {name:20} {mean:8.4f} {missing:8.1%} {guessed:>14} {seconds:8.0f}", flush=True)
            pictures.append((f"{name}\nmean {mean:.4f}", samples, [f"{value:.3f}" for value in distance], colours))
    toy2d.draw_rows(pictures, options.out)  # of the cohort; the picture of one student would be as long again


if __name__ == "__main__":
    main()
