"""The Python API with values of the wrong type or range: each expression raises an MsdError with a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.abuse.case import Case, Fault
from benchmarks.abuse.judge import EITHER, ERROR, FINE, Expect, judge
from benchmarks.abuse.scene import Scene
from benchmarks.abuse.world import World

NOT_FINITE = 3
"""Exit code of an expression that returned infinities: never a promised one."""

LABELS = (
    "0.5",
    "[0.5]",
    "[True]",
    "'3'",
    "None",
    "[None]",
    "[10]",
    "[-1]",
    "[2**70]",
    "torch.tensor([1.0])",
    "torch.tensor([True])",
    "torch.eye(10)[:2].long()",
    "torch.eye(10)[:2]",
    "torch.zeros(2, 2).long()",
    "[[0, 1], [2, 3]]",
    "object()",
    "{0: 1}",
    "float('nan')",
    "torch.zeros(2, dtype=torch.complex64)",
)
SEEDS = ("-1", "2**63", "0.5", "True", "'0'", "[0]", "float('nan')", "np.float32(1.0)", "object()")
SEED_LISTS = (
    "[0]",
    "[0, -1]",
    "[0, 2**63]",
    "[0, 0.5]",
    "[0, None]",
    "0",
    "'01'",
    "[0, 1, 2]",
    "torch.tensor([0.5, 1.0])",
    "[True, False]",
)
NOISES = (
    "torch.zeros(2)",
    "torch.full((2, 1, 8, 8), float('nan'))",
    "torch.full((2, 1, 8, 8), float('inf'))",
    "torch.zeros(2, 1, 8, 8).long()",
    "np.zeros((2, 1, 8, 8))",
    "torch.zeros(2, 1, 8, 9)",
    "torch.zeros(3, 1, 8, 8)",
    "[[0.0]]",
    "'noise'",
    "torch.zeros(2, 1, 8, 8).bool()",
    "torch.zeros(2, 1, 8, 8, dtype=torch.complex64)",
)
LOADS = ("'nowhere'", "''", "None", "3", "'/dev/zero'", "b'run'", "run", "run / 'recipe.json'", "['a']", "'a\\0b'")
LOAD_OPTIONS = (
    "device='cuda'",
    "device='cuda:9'",
    "device='tpu'",
    "device=3.5",
    "device=None",
    "backend='onnx'",
    "backend=None",
    "backend=3",
    "max_bytes=-1",
    "max_bytes=0.5",
    "max_bytes='1GB'",
    "max_bytes=float('nan')",
    "max_bytes=0",
    "max_bytes=True",
)
PARTITIONS = (
    "msd.Partition(parts=None, prior=None)",
    "msd.Partition(parts=3, prior=(1.0,))",
    "msd.Partition(parts=((0,),), prior=('x',))",
    "msd.Partition(parts=((0.0,),), prior=(1.0,))",
    "msd.Partition(parts=((True,),), prior=(0.5, 0.5))",
    "msd.Partition(parts=(('0',),), prior=(1.0,))",
    "msd.Partition(parts=((0,),), prior=(float('nan'),))",
    "msd.Partition(parts=((0,),), prior=(2.0,))",
    "msd.Partition(parts=((0,),), prior=(float('inf'),))",
    "msd.Partition(parts=(), prior=())",
    "msd.Partition(parts=((),), prior=(1.0,))",
    "msd.Partition(parts=((0, 0),), prior=(1.0,))",
    "msd.Partition(parts=((0,), (1,)), prior=(1.0, 0.0))",
    "msd.Partition.whole(None)",
    "msd.Partition.whole([])",
    "msd.Partition.whole('ab')",
    "msd.Partition.whole([0.5])",
    "msd.Partition.from_json(None, source='x')",
    "msd.Partition.from_json([], source='x')",
    "msd.Partition.from_json({'schema': 2}, source='x')",
    "msd.Partition.load('nowhere')",
    "msd.Partition.load(None)",
    "msd.Partition.load(3)",
    "part.assign([0.5])",
    "part.assign(None)",
    "part.assign('0')",
    "part.assign([True])",
    "part.assign(torch.eye(10)[:1])",
    "part.assign([99])",
    "part.weights(7)",
    "part.weights('0')",
    "part.weights(-1)",
    "part.weights(0.5)",
    "part.save(None)",
    "part.report('x')",
    "part.report(np.zeros((3, 2)))",
    "part.report(np.full((10, 2), np.nan))",
)
SOLVERS = (
    "msd.Solver('rk4', 4)",
    "msd.Solver(None, 4)",
    "msd.Solver('heun', 0)",
    "msd.Solver('heun', -1)",
    "msd.Solver('heun', 1.5)",
    "msd.Solver('heun', 'x')",
    "msd.Solver('heun', True)",
    "msd.Solver('heun', 4, sigma_min=0)",
    "msd.Solver('heun', 4, sigma_min=-1)",
    "msd.Solver('heun', 4, sigma_min=90)",
    "msd.Solver('heun', 4, sigma_max=float('nan'))",
    "msd.Solver('heun', 4, sigma_max=float('inf'))",
    "msd.Solver('heun', 4, sigma_max='80')",
    "msd.Solver('heun', 4, rho=0)",
    "msd.Solver('heun', 4, rho=float('nan'))",
    "msd.Solver('heun', 4, churn=3)",
    "msd.Solver('heun-sde', 2)(teacher, noise, labels)",
    "msd.Solver('heun-sde', 2)(teacher, noise, labels, step_noise=noise)",
    "msd.Solver('heun-sde', 4)(teacher, noise, labels, step_noise=lambda step: noise[:1])",
    "msd.Solver('dpmpp2m', 2)(teacher, noise, labels, step_noise=lambda step: noise)",
    "msd.Solver('euler', 2)(None, noise, labels)",
    "msd.Solver('euler', 2)(teacher, None, labels)",
    "msd.Solver('euler', 2)(teacher, noise, None)",
    "msd.Solver('euler', 2)(teacher, noise, torch.tensor([0, 99]))",
    "msd.Solver('euler', 2)(teacher, noise, torch.tensor([0.5, 1.0]))",
    "msd.Solver('euler', 2)(teacher, noise, torch.tensor([0]))",
    "msd.Solver('euler', 2)(teacher, noise * float('nan'), labels)",
    "msd.Solver('euler', 2)(teacher, noise[:, :, :3], labels)",
    "msd.Solver('euler', 2)(teacher, noise, torch.tensor([-1, 0]))",
)
DENOISERS = (
    "msd.load_denoiser(None)",
    "msd.load_denoiser(3)",
    "msd.load_denoiser('')",
    "msd.load_denoiser('nowhere')",
    "msd.load_denoiser('/dev/zero')",
    "msd.load_denoiser(run)",
    "msd.load_denoiser(b'x')",
    "msd.load_denoiser(folder, 'cuda')",
    "msd.load_denoiser(folder, 'tpu')",
    "msd.load_denoiser(folder, 3.5)",
    "teacher(noise, torch.ones(2), torch.tensor([0, 10]))",
    "teacher(noise, torch.ones(2), torch.tensor([0, -1]))",
    "teacher(noise, torch.ones(3), labels)",
    "teacher(noise, 'x', labels)",
    "teacher('x', torch.ones(2), labels)",
    "teacher(noise.double(), torch.ones(2), labels.float())",
    "teacher(noise, -torch.ones(2), labels)",
    "teacher(noise, torch.zeros(2), labels)",
    "teacher(noise, torch.full((2,), float('nan')), labels)",
    "teacher(noise[:, :, :5], torch.ones(2), labels)",
    "msd.Denoiser(None, None)",
    "msd.Denoiser('x', 3)",
)
MIXTURES = (
    "msd.GaussianMixtureTeacher(None, None)",
    "msd.GaussianMixtureTeacher(torch.zeros(2, 2, 2), torch.zeros(2, 2))",
    "msd.GaussianMixtureTeacher(torch.zeros(2, 2, 2), torch.ones(3, 2))",
    "msd.GaussianMixtureTeacher(torch.zeros(2, 2, 2), -torch.ones(2, 2))",
    "msd.GaussianMixtureTeacher(torch.full((2, 2, 2), float('nan')), torch.ones(2, 2))",
    "msd.GaussianMixtureTeacher(torch.zeros(2), torch.ones(2))",
    "mixture(torch.zeros(1, 2), torch.ones(1), torch.tensor([5]))",
    "mixture(torch.zeros(1, 2), torch.ones(1), torch.tensor([-1]))",
    "mixture(torch.zeros(1, 2), torch.ones(2), torch.tensor([0]))",
    "mixture(torch.zeros(1, 3), torch.ones(1), torch.tensor([0]))",
    "mixture(torch.zeros(1, 2), torch.ones(1), torch.tensor([0.5]))",
)
RECIPES = (
    "msd.load_recipe(None)",
    "msd.load_recipe(3)",
    "msd.load_recipe('')",
    "msd.load_recipe('nowhere')",
    "msd.load_recipe('smoke', 'dm.weight=1')",
    "msd.load_recipe('smoke', [3])",
    "msd.load_recipe('smoke', ['dm.weight'])",
    "msd.load_recipe('smoke', seed=-1)",
    "msd.load_recipe('smoke', seed='x')",
    "msd.load_recipe('smoke', seed=2**64)",
    "msd.load_recipe('smoke', seed=0.5)",
    "msd.load_recipe('smoke', seed=True)",
    "msd.load_recipe('smoke', surprise=1)",
    "msd.load_recipe('smoke', device=3)",
    "msd.load_recipe(run)",
    "msd.load_recipe('/dev/zero')",
    "recipe.row('nothing')",
    "recipe.variant({'surprise': 1})",
    "recipe.variant(None)",
    "recipe.variant({'dm.weight': float('nan')})",
)
SIZES = (
    "shrink.candidates({})",
    "shrink.candidates({'block_out_channels': []})",
    "shrink.candidates(config | {'down_block_types': ['CrossAttnDownBlock2D'] * 2})",
    "shrink.smaller_config(config, 'x')",
    "shrink.smaller_config(config, None)",
    "shrink.smaller_config(config, True)",
    "shrink.smaller_config(config, float('nan'))",
    "shrink.smaller_config(config, -0.1)",
    "shrink.smaller_config(config, 1)",
    "shrink.smaller_config(config, 0.1)",
    "inherit.inherit(teacher, {})",
    "inherit.inherit(teacher, config | {'block_out_channels': [8, 32]})",
    "inherit.inherit(teacher, config | {'block_out_channels': [7, 16]})",
    "inherit.inherit(teacher, config | {'block_out_channels': [0, 16]})",
    "inherit.inherit(teacher, config | {'in_channels': 3})",
    "inherit.inherit(teacher, config | {'layers_per_block': 9})",
    "inherit.inherit(teacher, config | {'norm_num_groups': 3})",
    "inherit.fresh(teacher, config, -1)",
    "inherit.fresh(teacher, config, 0.5)",
    "taps.Tap(teacher, 'middle')",
    "taps.Tap(teacher, 3)",
    "taps.Tap(teacher, None)",
)
FINE_ONES = (
    "shrink.smaller_config(config, 0).config",
    "shrink.smaller_config(config, 0.42).config",
    "inherit.inherit(teacher, config)(noise, torch.ones(2), labels)",
    "inherit.inherit(teacher, shrink.smaller_config(config, 0.42).config)(noise, torch.ones(2), labels)",
    "taps.Tap(teacher, 'bottleneck')(teacher, noise, torch.ones(2), labels)",
    "cohort.generate([1, 2], noise=torch.zeros(2, 1, 8, 8).double())",
    "cohort.generate(['3'], seed=0)",
    "cohort.generate([3, 3], seed=0)",
    "cohort.generate([], seed=0)",
    "cohort.generate((0, 9), seeds=(1, 2))",
    "cohort.generate(torch.tensor([1, 2], dtype=torch.int32), seed=1)",
    "cohort.generate(np.array([1, 2]), seed=np.int64(3))",
    "cohort.generate([1, 2], seeds=np.array([1, 2]))",
    "cohort.generate([1, 2], seeds=torch.tensor([1, 2]))",
    "cohort.generate([1], seed=2**63 - 1)",
    "cohort.generate([np.int64(1)])",
    "msd.Cohort.load(str(run / 'cohort'))",
    "msd.Cohort.load(run / 'cohort', device=torch.device('cpu'))",
    "msd.load_denoiser(str(folder))",
    "msd.Partition.load(str(run / 'partition.json'))",
    "msd.Partition.load(run / 'partition.json')",
    "msd.load_recipe(msd.load_recipe('smoke').name, seed=np.int64(3))",
    "msd.load_recipe('smoke', ['dm.weight=2'])",
    "part.assign([0, 9])",
    "part.assign(np.array([0, 9]))",
    "msd.Solver('euler', np.int64(2))(teacher, noise, labels)",
)
ACCEPTABLE = (
    "[[0, 1], [2, 3]]",
    "torch.zeros(2, 2).long()",
    "np.zeros((2, 1, 8, 8))",
    "np.float32(1.0)",
    "max_bytes=0)",
    "device=None)",
)
"""What a function may come to take for what it says; right where it is used so."""


def expressions() -> Iterator[tuple[str, Expect]]:
    wrong = [
        *(f"cohort.generate({labels}, seed=0)" for labels in LABELS),
        *(f"cohort.route({labels})" for labels in LABELS[::2]),
        *(f"cohort.generate([1, 2], seed={seed})" for seed in SEEDS),
        *(f"cohort.generate([1, 2], seeds={seeds})" for seeds in SEED_LISTS),
        *(f"cohort.generate([1, 2], noise={noise})" for noise in NOISES),
        "cohort.generate([1, 2], seed=0, seeds=[1, 2])",
        "cohort.generate([1, 2], seed=2**63 - 1)",
        *(f"msd.Cohort.load({place})" for place in LOADS),
        *(f"msd.Cohort.load(run / 'cohort', {option})" for option in LOAD_OPTIONS),
        *PARTITIONS,
        *SOLVERS,
        *DENOISERS,
        *MIXTURES,
        *RECIPES,
        *SIZES,
    ]
    for text in wrong:
        yield text, EITHER if any(word in text for word in ACCEPTABLE) else ERROR
    for text in FINE_ONES:
        yield text, FINE


def cases(world: World) -> Iterator[Case]:
    for text, expect in expressions():
        yield _case(text, expect)


def _case(text: str, expect: Expect) -> Case:
    def play(scene: Scene) -> list[Fault]:
        return judge(scene.call(lambda: _evaluate(text, scene.world), seconds=10), expect)

    return Case("api", text.replace("\n", " "), play)


def _evaluate(text: str, world: World) -> None:
    """What a user's program would do with a library's errors: an MsdError is a sentence, anything else a traceback."""
    import sys

    import numpy as np
    import torch

    import msd
    from msd.networks import inherit, shrink, taps
    from msd.networks.facts import read_config

    names: dict[str, Any] = {"msd": msd, "np": np, "torch": torch, "run": world.run, "folder": world.teacher}
    names |= {"noise": torch.zeros(2, 1, 8, 8), "labels": torch.tensor([0, 1])}
    names |= {"shrink": shrink, "inherit": inherit, "taps": taps, "config": read_config(world.teacher)}
    made = {
        "cohort": lambda: msd.Cohort.load(world.run / "cohort"),
        "teacher": lambda: msd.load_denoiser(world.teacher),
        "part": lambda: msd.Partition.load(world.run / "partition.json"),
        "recipe": lambda: msd.load_recipe("smoke"),
        "mixture": lambda: msd.GaussianMixtureTeacher(torch.zeros(2, 2, 2), torch.ones(2, 2)),
    }
    names |= {name: make() for name, make in made.items() if f"{name}." in text or f"{name}(" in text or f"({name}," in text}
    try:
        value = eval(text, names)
        if isinstance(value, torch.Tensor) and not value.isfinite().all():
            sys.stderr.write("it returned what is not finite\n")
            sys.exit(NOT_FINITE)
    except msd.MsdError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)
