"""Times real updates of networks that a recipe could have: `python -m msd.commands.timing_probe NUM_PROCESSES`.

Says `{"start": seconds}` once it can work. Then for each line that comes in, a `Question` as JSON, one line goes out, an
`Answer`. A teacher is timed alone; a student in all processes at once, as a fleet trains them, because the cores of one
machine share caches and, often, arithmetic. What counts are seconds of work, not of the clock: other programs that happen to
run don't make a network look slow.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from msd.diffusion.denoiser import Denoiser
    from msd.stages.materials import Materials

FORKS = sys.platform == "linux"
WARM, FEWEST, MOST = 1, 2, 8
"""Updates before the clock counts (they fill caches and reserve memory), and those of which the shortest counts: at least
FEWEST, and up to MOST until ENOUGH seconds are spent."""
ENOUGH = 0.25
EVALUATED = 64
"""Images of a timed evaluation."""
NUM_IMAGES = 256


@dataclass(frozen=True)
class Question:
    """One network on images of one shape. All values are plain, since they travel as JSON."""

    network: dict[str, Any]
    channels: int
    size: int
    num_classes: int
    teacher_batch: int
    student_batch: int


@dataclass(frozen=True)
class Timer:
    """Seconds of work and by the clock, of what was timed so far."""

    spent: list[float]
    passed: list[float]

    def shortest(self, act: Callable[[], Any]) -> float:
        durations: list[float] = []
        for _ in range(WARM + MOST):
            work, clock = time.process_time(), time.perf_counter()
            act()
            durations.append(time.process_time() - work)
            self.spent.append(durations[-1])
            self.passed.append(time.perf_counter() - clock)
            if len(durations) >= WARM + FEWEST and sum(durations[WARM:]) >= ENOUGH:
                break
        return min(durations[WARM:])


def main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # the command that asks also says when to stop: it closes the input
        signal.signal(number, signal.SIG_IGN)
    questions, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints may look like an answer
    _import()
    others = [_Other() for _ in range(int(sys.argv[1]) - 1)] if FORKS else []
    _say(answers, {"start": time.process_time()})
    for line in questions:
        question = Question(**json.loads(line))
        timer = Timer([], [])
        answer, materials = time_teacher(question, timer)
        for other in others:
            other.ask(line)
        found = [time_student(question, materials, timer), *(other.answer() for other in others)]
        answer |= {key: sum(one[key] for one in found) / len(found) for key in ("regression_update", "full_update")}
        answer["spent"] = sum(timer.spent)
        answer["busy"] = sum(timer.passed) / max(sum(timer.spent), 1e-9)
        _say(answers, answer)


def _import() -> None:
    import torch
    import torch._dynamo  # an optimiser imports it with its first step
    from diffusers.models.unets.unet_2d import UNet2DModel  # noqa: F401

    import msd.stages.table  # noqa: F401

    torch.set_num_threads(1)


class _Other:
    """Another process, forked from this one, that times a student whenever it is asked."""

    def __init__(self) -> None:
        questions, self._ask = os.pipe()
        self._answer, answers = os.pipe()
        if os.fork() == 0:
            os.close(self._ask)
            os.close(self._answer)
            try:
                with os.fdopen(questions) as lines, os.fdopen(answers, "w") as said:
                    for line in lines:
                        question, timer = Question(**json.loads(line)), Timer([], [])
                        _say(said, time_student(question, untrained(question), timer))
            finally:
                os._exit(0)
        os.close(questions)
        os.close(answers)
        self._lines = os.fdopen(self._answer)

    def ask(self, line: str) -> None:
        os.write(self._ask, line.encode())

    def answer(self) -> dict[str, float]:
        return json.loads(self._lines.readline())


def time_teacher(question: Question, timer: Timer) -> tuple[dict[str, float], Materials]:
    """Seconds of an update and of an image's evaluation, the number of parameters; and what a student is made from."""
    import torch

    updates, teacher = _pretraining(question)
    update = timer.shortest(lambda: next(updates))
    noise = torch.randn(EVALUATED, *teacher.spec.noise_shape)
    sigma, keys = torch.ones(EVALUATED), torch.zeros(EVALUATED, dtype=torch.long)
    teacher.requires_grad_(False)
    with torch.inference_mode():
        evaluation = timer.shortest(lambda: teacher(noise, sigma, keys))
    facts = {
        "num_parameters": sum(parameter.numel() for parameter in teacher.parameters()),
        "teacher_update": update,
        "evaluation": evaluation / EVALUATED,
    }
    return facts, _student_materials(question, teacher)


def _pretraining(question: Question) -> tuple[Iterator[Any], Denoiser]:
    """Updates of a fresh teacher on noise that stands for images, one a step; and the teacher."""
    import torch

    from msd.data.images import ImageSet
    from msd.recipe import TEACHER, NetworkSection, PretrainSection
    from msd.stages.materials import Materials
    from msd.stages.pretrain import Pretraining
    from msd.training.engine import Engine
    from msd.training.loop import steps

    torch.manual_seed(0)
    num = max(NUM_IMAGES, question.num_classes)
    pixels = torch.randint(256, (num, question.channels, question.size, question.size), dtype=torch.uint8)
    images = ImageSet("noise", pixels, torch.arange(num) % question.num_classes, question.num_classes, "none")
    engine = Engine.on("cpu")
    settings = PretrainSection(num_updates=WARM + MOST + 1, batch_size=question.teacher_batch)
    network = NetworkSection.model_validate(question.network)
    stage = Pretraining(settings, Materials(engine, 0, images=images, network=network))
    return steps(stage, engine, 0), stage.roles[TEACHER].module


def untrained(question: Question) -> Materials:
    """What a student is made from, without timing a teacher."""
    return _student_materials(question, _pretraining(question)[1])


def _student_materials(question: Question, teacher: Denoiser) -> Materials:
    import torch

    from msd.conditions.partition import Partition
    from msd.conditions.table import LabelConditions
    from msd.data.pairs import PairSet
    from msd.stages.materials import Materials
    from msd.training.engine import Engine

    num, num_pairs = question.num_classes, 4 * question.student_batch
    start = teacher.copy()
    start.spec = _student_spec(start)
    noise = torch.randn(num_pairs, *teacher.spec.noise_shape)
    return Materials(
        Engine.on("cpu"),
        0,
        teacher=teacher,
        start=start,
        conditions=LabelConditions(num),
        partition=Partition.whole((1 / num,) * num),
        pairs=PairSet(noise, torch.arange(num_pairs) % num, noise / 4),
    )


def _student_spec(start: Denoiser) -> Any:
    from dataclasses import replace

    return replace(start.spec, sigma_init=2.5)


def time_student(question: Question, materials: Materials, timer: Timer) -> dict[str, float]:
    """Seconds of an update by regression alone, and of a full one."""
    return {
        "regression_update": timer.shortest(_distilling(question, materials, head_start=1.0)),
        "full_update": timer.shortest(_distilling(question, materials, head_start=0.0)),
    }


def _distilling(question: Question, materials: Materials, *, head_start: float) -> Callable[[], Any]:
    """Takes the next update of a fresh student."""
    from msd.recipe import DMSection, RegressionSection
    from msd.stages.dm import DistributionMatching
    from msd.training.loop import steps

    regression = RegressionSection(batch_size=question.student_batch, head_start=head_start)
    settings = DMSection(num_updates=WARM + MOST + 1, batch_size=question.student_batch, regression=regression)
    updates = steps(DistributionMatching(settings, materials), materials.engine, 0)
    return lambda: next(updates)


def _say(stream: TextIO, value: dict[str, float]) -> None:
    stream.write(json.dumps(value) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()
