"""Whatever a caller gives is taken or refused in one sentence by an MsdError, from Python as on the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import msd
from builders import UNIFORM, random_pairs, tiny_denoiser
from msd import checks
from msd.cohort.generate import Cohort
from msd.cohort.manifest import Manifest, read_manifest
from msd.cohort.residency import Residency
from msd.conditions.partition import Partition
from msd.conditions.splits import SplitRequest, make_partition
from msd.conditions.table import LabelConditions
from msd.data.images import ImageSet, load_images
from msd.data.pairs import PairSet, PairsPlan, make_pairs
from msd.data.shards import open_pairs
from msd.diffusion.codec import AffineCodec
from msd.diffusion.denoiser import DenoiserSpec, EDMParameterisation, FlowParameterisation, VPParameterisation, guided
from msd.diffusion.draw import Draw, Slice, derived_seed, image_noise, noise_by_step
from msd.diffusion.noise import KarrasLaw, LogNormalLaw, karras_sigmas
from msd.diffusion.solvers import Churn, Solver, one_step
from msd.errors import (
    ConditionError,
    DataError,
    MsdError,
    PartitionError,
    RecipeError,
    RunError,
    SolverError,
    TrainingError,
    WeightsError,
)
from msd.fleet.inputs import read_inputs
from msd.fleet.plan import plan
from msd.fleet.starts import read_start
from msd.networks.build import unet_config
from msd.networks.facts import read_facts
from msd.networks.folder import load_denoiser, spec_from_json, spec_to_json
from msd.recipe import DataSection, DMSection, Recipe, SolverSection, load_recipe, revised, section_of, validate
from msd.run import Run
from msd.teachers.analytic import GaussianMixtureTeacher
from msd.teachers.folder import load_teacher
from msd.training.bundle import Bundle
from msd.training.engine import Engine

NAN, INF = math.nan, math.inf
PARTS = Partition(parts=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9)), prior=UNIFORM)
NOISE, LABELS = torch.zeros(2, 1, 8, 8), torch.tensor([3, 7])
PIXELS = torch.zeros(2, 1, 8, 8)
MIXTURE = GaussianMixtureTeacher(torch.zeros(2, 3, 4), torch.ones(2, 3))


def blank(x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
    return torch.zeros_like(x)


def broken(x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
    return x * NAN


def images(pixels: Any = PIXELS, labels: Any = LABELS, num: Any = 10) -> ImageSet:
    return ImageSet("mine", pixels, labels, num, "CC0")


def plan_of(**changes: Any) -> PairsPlan:
    return PairsPlan(**({"num_pairs": 2, "shard_size": 2, "weights": UNIFORM, "seed": 0, "identity": "x"} | changes))


def spec(**changes: Any) -> DenoiserSpec:
    return DenoiserSpec(**({"noise_shape": (1, 8, 8), "num_conditions": 10} | changes))


def stored(**changes: Any) -> dict[str, Any]:
    return spec_to_json(spec()) | changes


WITHOUT_FILES: list[tuple[Callable[[], Any], type[MsdError], str]] = [
    # solvers and noise
    (lambda: Solver("rk4", 4), SolverError, "no solver 'rk4'; choose one of euler, heun, dpmpp2m, heun-sde"),
    (lambda: Solver(["heun"], 4), SolverError, "no solver"),
    (lambda: Solver("heun", 0), SolverError, "num_steps 0 is out of range; give a whole number from 1"),
    (lambda: Solver("heun", -3), SolverError, "num_steps -3"),
    (lambda: Solver("heun", 2.0), SolverError, "num_steps 2.0 is of type float"),
    (lambda: Solver("heun", True), SolverError, "num_steps True is of type bool"),
    (lambda: Solver("heun", 10**9), SolverError, "out of range"),
    (lambda: Solver("heun", 4, 5.0, 2.0), SolverError, "sigma_min 5.0 is not below sigma_max 2.0"),
    (lambda: Solver("heun", 4, -1.0), SolverError, "sigma_min -1 is out of range"),
    (lambda: Solver("heun", 4, sigma_max=NAN), SolverError, "sigma_max nan"),
    (lambda: Solver("heun", 4, sigma_max="80"), SolverError, "sigma_max '80' is of type str"),
    (lambda: Solver("heun", 4, rho=0), SolverError, "rho 0"),
    (lambda: Solver("heun", 4, churn=5), SolverError, "churn 5 is of type int, not Churn"),
    (
        lambda: Solver("heun", 4, churn=Churn()),
        SolverError,
        "heun adds no noise, so churn would do nothing; choose heun-sde",
    ),
    (lambda: Churn(-1), SolverError, "churn amount -1"),
    (lambda: Churn(1, 5, 2), SolverError, "sigma_high of churn 2"),
    (lambda: Solver("heun", 2)(blank, NOISE * NAN, LABELS), SolverError, "2 of 2 samples of noise are not finite"),
    (lambda: Solver("heun", 2)(blank, NOISE.long(), LABELS), SolverError, "not floats"),
    (lambda: Solver("heun", 2)(blank, [[0.0]], LABELS), SolverError, "not floats"),
    (lambda: Solver("heun", 2)(blank, NOISE, LABELS[:1]), SolverError, r"conditions have shape \(1,\) for 2 samples"),
    (lambda: Solver("heun", 2)(broken, NOISE + 1, LABELS), SolverError, "2 of 2 samples of heun2 are not finite"),
    (lambda: one_step(blank, NOISE, LABELS, 0), SolverError, "sigma_init 0"),
    (lambda: karras_sigmas(0, 0.1, 1), SolverError, "num_steps 0"),
    (lambda: karras_sigmas(3, 1, 1), SolverError, "not below"),
    (lambda: KarrasLaw(2, 1), SolverError, "not below"),
    (lambda: LogNormalLaw(NAN), SolverError, r"mean of ln\(sigma\) nan"),
    (lambda: LogNormalLaw(0, -1), SolverError, r"deviation of ln\(sigma\) -1"),
    (lambda: KarrasLaw().sample(-1, Draw(0, "x")), RecipeError, "number of samples -1"),
    # draws
    (lambda: Draw(-1, "x"), RecipeError, "seed -1 is out of range; give a whole number from 0 to 9223372036854775807"),
    (lambda: Draw(2**63, "x"), RecipeError, "seed 9223372036854775808"),
    (lambda: Draw(0.5, "x"), RecipeError, "seed 0.5 is of type float"),
    (lambda: Draw(0, 3), RecipeError, "place 3"),
    (lambda: Draw(0, "x", -1), RecipeError, "step -1"),
    (lambda: Draw(0, "x", device="gpu"), RunError, "'gpu' is not a device"),
    (lambda: Draw(0, "x", slice=3), RecipeError, "slice 3"),
    (lambda: Slice(2, 2), RecipeError, "rank 2"),
    (lambda: Draw(0, "x").normal(2, 0), RecipeError, "a size of shape 0"),
    (lambda: Draw(0, "x").uniform(2.5), RecipeError, "number of samples 2.5"),
    (lambda: Draw(0, "x").choice(torch.tensor([NAN, 1]), 2), RecipeError, "no distribution"),
    (lambda: Draw(0, "x").choice(torch.zeros(3), 2), RecipeError, "no distribution"),
    (lambda: Draw(0, "x").choice([0.5, 0.5], 2), RecipeError, "no distribution"),
    (lambda: Draw(0, "x").indices(3, 4, replacement=False), RecipeError, "the number of draws 4"),
    (lambda: Draw(0, "x").indices(0, 1, replacement=True), RecipeError, "the number to draw from 0"),
    (lambda: derived_seed(object()), RecipeError, "no word and no number"),
    (lambda: derived_seed(NAN), RecipeError, "nan is no word"),
    (lambda: image_noise([0.5], (1, 2)), ConditionError, "seed 0.5"),
    (lambda: image_noise([-1], (1, 2)), ConditionError, "seed -1"),
    (lambda: noise_by_step([0.5], (1, 2)), ConditionError, "seed 0.5"),
    (lambda: noise_by_step("12", (1, 2)), ConditionError, "seeds '12' is of type str"),
    (lambda: image_noise("12", (1, 2)), ConditionError, "seeds '12' is of type str"),
    (lambda: image_noise([1], (1, -2)), ConditionError, "-2 is out of range"),
    (lambda: image_noise(range(2**40), (3, 512, 512)), ConditionError, r"would need about .* TiB .* at most about .* fit"),
    # denoisers and codecs
    (lambda: spec(noise_shape=(1, 0)), WeightsError, "noise_shape 0"),
    (lambda: spec(noise_shape=8), WeightsError, "noise_shape 8 is of type int"),
    (lambda: spec(num_conditions=0), WeightsError, "num_conditions 0"),
    (lambda: spec(sigma_min=3, sigma_max=2), WeightsError, "sigma_min 3 is not below"),
    (lambda: spec(sigma_init=NAN), WeightsError, "sigma_init nan"),
    (lambda: spec(guidance=INF), WeightsError, "guidance inf"),
    (lambda: msd.Denoiser(3, spec()), WeightsError, "network 3"),
    (lambda: msd.Denoiser(torch.nn.Identity(), {}), WeightsError, "spec {}"),
    (lambda: EDMParameterisation(0), WeightsError, "sigma_data 0"),
    (lambda: VPParameterisation("z", (0.9, 0.1)), WeightsError, "no prediction 'z'; choose one of eps, v, x0"),
    (lambda: VPParameterisation("v", (0.1, 0.9)), WeightsError, "must fall"),
    (lambda: FlowParameterisation(-1), WeightsError, "time_scale -1"),
    (lambda: AffineCodec(scale=0), DataError, "scale of the codec 0"),
    (lambda: AffineCodec(shift=NAN), DataError, "shift of the codec nan"),
    (
        lambda: spec_from_json(stored(codec={"kind": "wavelet"})),
        WeightsError,
        "kind 'wavelet', this version knows affine",
    ),
    (lambda: spec_from_json(stored(codec={"kind": []})), WeightsError, "this version knows affine"),
    (lambda: spec_from_json(stored(codec={"kind": "affine", "shift": 0, "scale": 0})), WeightsError, "scale of the codec"),
    (lambda: spec_from_json(stored(noise_shape=["a"])), WeightsError, "noise_shape"),
    (lambda: guided(blank, NAN, lambda c: c), ConditionError, "guidance scale nan"),
    (lambda: unet_config((1, 8, 8), 10, {"block_out_channels": (8,) * 5}), RecipeError, "5 levels, but a size of 8"),
    # the analytic teacher
    (lambda: GaussianMixtureTeacher(torch.zeros(2, 3), torch.ones(2, 3)), ConditionError, "give .num_conditions"),
    (lambda: GaussianMixtureTeacher(torch.zeros(2, 3, 4), torch.zeros(2, 3)), ConditionError, "all above 0"),
    (lambda: GaussianMixtureTeacher(torch.zeros(2, 3, 4) * NAN, torch.ones(2, 3)), ConditionError, "not finite floats"),
    (lambda: MIXTURE(torch.zeros(1, 4), torch.ones(1), torch.tensor([2])), ConditionError, "classes are 0 to 1"),
    (lambda: MIXTURE(torch.zeros(1, 5), torch.ones(1), torch.tensor([0])), ConditionError, "samples of shape"),
    (lambda: MIXTURE(torch.zeros(1, 4), torch.ones(2), torch.tensor([0])), ConditionError, "one noise level a sample"),
    (lambda: MIXTURE.sample(torch.tensor([5]), Draw(0, "x")), ConditionError, "classes are 0 to 1"),
    # partitions
    (lambda: Partition(3, UNIFORM), PartitionError, "parts 3 is of type int; give a list of lists"),
    (lambda: Partition(("ab",), (1.0,)), PartitionError, "part 0 'ab' is of type str"),
    (lambda: Partition(((0.0,),), (1.0,)), PartitionError, "a class in part 0 0.0 is of type float"),
    (lambda: Partition(((True,),), (1.0,)), PartitionError, "type bool"),
    (lambda: Partition(((0,),), (NAN,)), PartitionError, r"prior\[0\] nan"),
    (lambda: Partition(((0,),), ("1",)), PartitionError, r"prior\[0\] '1' is of type str"),
    (lambda: Partition((), ()), PartitionError, "the prior sums to 0"),
    (lambda: Partition(((0,),), (1.0,), None), PartitionError, "method None"),
    (lambda: Partition.whole(None), PartitionError, "prior None"),
    (lambda: PARTS.weights(2), PartitionError, "part 2 is out of range; give a whole number from 0 to 1"),
    (lambda: PARTS.weights([0]), PartitionError, "of type list"),
    (lambda: PARTS.sample(0, -1, Draw(0, "x")), RecipeError, "number of samples -1"),
    (lambda: PARTS.report(np.zeros((3, 2))), PartitionError, "not one row of floats for each of 10 classes"),
    (lambda: PARTS.report(np.full((10, 2), NAN)), PartitionError, "not finite"),
    (lambda: Partition.load(3), PartitionError, "of type int; give a path"),
    (lambda: Partition.load(""), PartitionError, "no path that can exist"),
    (lambda: SplitRequest(0, 1), PartitionError, "num_conditions 0"),
    (lambda: SplitRequest(10, 2.5), PartitionError, "num_parts 2.5"),
    (lambda: SplitRequest(10, 2, seed=-1), PartitionError, "partition.seed -1"),
    (lambda: SplitRequest(10, 2, file=3), PartitionError, "partition.file 3"),
    (lambda: make_partition("even", SplitRequest(10, 2), UNIFORM), PartitionError, "no split 'even'; choose one of"),
    (lambda: make_partition("random", SplitRequest(10, 2), (1.0,)), PartitionError, "1 values for 10 classes"),
    (lambda: make_partition("random", SplitRequest(10, 11), UNIFORM), PartitionError, "between 1 and 10"),
    (lambda: make_partition("random", 3, UNIFORM), PartitionError, "request 3"),
    (lambda: LabelConditions(0), ConditionError, "number of classes 0"),
    # data
    (lambda: load_images(DataSection(source="packaged:cifar")), DataError, "no image set 'packaged:cifar'; choose one of"),
    (lambda: load_images([]), DataError, "not DataSection"),
    (lambda: images(PIXELS * NAN), DataError, "2 of 2 images of mine hold numbers that are not finite"),
    (lambda: images(PIXELS + 2), DataError, r"beyond \[-1, 1\]"),
    (lambda: images(PIXELS.double()), DataError, "give float32"),
    (lambda: images(labels=torch.tensor([0, 10])), DataError, "class 10 is outside mine"),
    (lambda: images(labels=LABELS.float()), DataError, "labels are of type float32"),
    (lambda: images(labels=LABELS[:1]), DataError, "1 labels for 2 images"),
    (lambda: images().codec(0.5), DataError, "all pixels of mine are the same"),
    (lambda: plan_of(num_pairs=0), DataError, "num_pairs 0"),
    (lambda: plan_of(weights=(0.0,)), DataError, "weights of all classes are 0"),
    (lambda: plan_of(weights=(NAN,)), DataError, r"weights\[0\] nan"),
    (lambda: plan_of(seed=2**63), DataError, "seed"),
    (lambda: PairSet(NOISE, LABELS, NOISE[:1]), DataError, "give .P"),
    (lambda: open_pairs(None), DataError, "the pairs' folder None"),
    # engine, recipe, plan
    (lambda: Engine.on("tpu9"), RunError, "'tpu9' is not a device"),
    (lambda: Engine.on("meta"), RunError, "device meta is not supported"),
    (lambda: Engine.on(None), RunError, "device None is of type NoneType"),
    (lambda: Engine.on("cpu", 0), RunError, "threads 0"),
    (lambda: Residency(lambda key: key, lambda key: 1, max_bytes=-1), WeightsError, "max_bytes -1"),
    (lambda: load_recipe(["digits"]), RecipeError, "of type list; give a path"),
    (lambda: load_recipe("digits", "seed=3"), RecipeError, "overrides 'seed=3' is of type str"),
    (lambda: load_recipe("digits", [3]), RecipeError, "an override 3"),
    (lambda: load_recipe("digits", seed=-1), RecipeError, r"seed: .*\(got -1\)"),
    (lambda: load_recipe("digits", ["seed=0x" + "f" * 9000]), RecipeError, "more than 64 bits"),
    (lambda: load_recipe("digits", ["dm.num_updates=true"]), RecipeError, "a number is wanted, not true or false"),
    (lambda: load_recipe("digits", ["pairs.solver.sigma_min=30"]), RecipeError, "sigma_min 30 must be below sigma_max 20"),
    (lambda: revised(3, None), RecipeError, "a stored recipe 3"),
    (lambda: validate(None), RecipeError, "dictionary"),
    (lambda: section_of([]), RecipeError, "no stage"),
    (lambda: DMSection(num_updates=0), RecipeError, "num_updates: .*greater than or equal to 1"),
    (lambda: Recipe(name="x", dm={"batch_size": -1}), RecipeError, "dm.batch_size: .*greater than"),
    (lambda: Recipe(name="x").row("mine"), RecipeError, "no row 'mine'; choose one of"),
    (lambda: Recipe(name="x").variant(3), RecipeError, "overrides 3"),
    (lambda: SolverSection(method="rk4"), RecipeError, "'heun', 'euler' or 'dpmpp2m'"),
    (lambda: plan("digits", None), RecipeError, "recipe 'digits' is of type str, not Recipe"),
    (lambda: read_inputs(None), RecipeError, "read one with load_recipe"),
    (lambda: Cohort(None), WeightsError, r"manifest None .* use Cohort.load\(folder\)"),
    (lambda: Cohort.load(3), WeightsError, "a cohort's folder 3"),
    (lambda: load_teacher(None), WeightsError, "a teacher's source None"),
    (lambda: Run.open(3), RunError, "a run's folder 3"),
    (lambda: Run.open("nowhere"), RunError, "not a run's folder"),
    (lambda: read_manifest("nowhere"), WeightsError, "nowhere"),
    (lambda: read_start("nowhere"), WeightsError, "holds no student"),
    (lambda: read_facts(None), WeightsError, "a denoiser's folder None"),
    (lambda: Bundle.load("nowhere"), WeightsError, "nowhere cannot be read"),
    (lambda: load_denoiser(b"x"), WeightsError, "a denoiser's folder b'x'"),
]


@pytest.mark.parametrize(("call", "error", "words"), WITHOUT_FILES)
def test_what_cannot_be_is_refused_in_a_sentence(call: Callable[[], Any], error: type[MsdError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert type(caught.value) is error
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert message.endswith(".") or "(known:" in message or "?" in message


@pytest.mark.parametrize("load", [Cohort.load, load_teacher, load_denoiser])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(load: Callable[..., Any]) -> None:
    with pytest.raises(RunError, match=r"device cuda is not there \(torch sees 0 GPUs\)"):
        load("nowhere", device="cuda")


ONE_HOT = torch.eye(10)[[3, 7]]
REQUESTS: list[tuple[dict[str, Any], type[MsdError], str]] = [
    ({"labels": [0.5]}, PartitionError, "label 0.5 is of type float; give a whole number"),
    ({"labels": [3.0]}, PartitionError, "label 3.0 is of type float"),
    ({"labels": torch.tensor([3.0])}, PartitionError, "labels are of type float32; give whole class numbers from 0 to 9"),
    ({"labels": np.array([3.0])}, PartitionError, "labels are of type float64"),
    ({"labels": [True, False]}, PartitionError, "label True is of type bool"),
    ({"labels": torch.tensor([True])}, PartitionError, "labels are of type bool"),
    ({"labels": ONE_HOT}, PartitionError, r"labels have shape \(2, 10\) \(one-hot.*argmax"),
    ({"labels": ONE_HOT.long().tolist()}, PartitionError, "one-hot"),
    ({"labels": ["x"]}, ConditionError, "there is no class 'x'; give a number from 0 to 9"),
    ({"labels": ["10"]}, PartitionError, "class 10 is outside the partition"),
    ({"labels": "3"}, PartitionError, "labels '3' is of type str"),
    ({"labels": None}, PartitionError, "labels None is of type NoneType; give a list"),
    ({"labels": 3}, PartitionError, "labels 3 is of type int; give a list"),
    ({"labels": torch.tensor(3)}, PartitionError, "not one number an image"),
    ({"labels": [10**30]}, PartitionError, "class 1000000000000000000000000000000 is outside the partition"),
    ({"labels": [-1]}, PartitionError, "class -1 is outside the partition; classes are 0 to 9"),
    ({"labels": np.array(["a"])}, ConditionError, "there is no class 'a'"),
    ({"labels": np.array([["3"]])}, PartitionError, "are not numbers"),
    ({"labels": [3], "seed": 0.5}, ConditionError, "seed 0.5 is of type float"),
    ({"labels": [3], "seed": True}, ConditionError, "seed True is of type bool"),
    ({"labels": [3], "seed": "0"}, ConditionError, "seed '0' is of type str"),
    ({"labels": [3, 3], "seed": 2**63 - 1}, ConditionError, "seed 9223372036854775808 is out of range"),
    ({"labels": [3], "seeds": 7}, ConditionError, "seeds 7 is of type int; give a list"),
    ({"labels": [3], "seeds": [None]}, ConditionError, "seed None"),
    (
        {"labels": [3], "noise": [0.0]},
        ConditionError,
        r"noise is of type list; give a float32 tensor of shape \(",
    ),
    ({"labels": [3], "noise": torch.zeros(1, 8, 8)}, ConditionError, "noise has shape"),
    ({"labels": [3], "noise": torch.zeros(1, 1, 8, 8).long()}, ConditionError, "noise is of type int64"),
    ({"labels": [3], "noise": torch.full((1, 1, 8, 8), NAN)}, ConditionError, "1 of 1 samples of noise are not finite"),
    ({"labels": [3], "noise": torch.full((1, 1, 8, 8), 1e300, dtype=torch.float64)}, ConditionError, "not finite"),
]


@pytest.mark.parametrize(("request_", "error", "words"), REQUESTS)
def test_requests_that_cannot_be_answered(cohort: Manifest, request_: dict, error: type[MsdError], words: str) -> None:
    loaded = Cohort.load(cohort.folder)
    with pytest.raises(error, match=words):
        loaded.generate(**({"seed": 0} if len(request_) == 1 else {}) | request_)
    assert loaded.students.resident == ()


def test_kinds_of_whole_numbers_and_of_paths_are_all_one(cohort: Manifest) -> None:
    wanted = Cohort.load(cohort.folder).generate([3, 7], seed=5)
    loaded = Cohort.load(str(cohort.folder))
    small, plain = np.array([3, 7], dtype=np.uint8), [np.int64(3), np.int32(7)]
    for labels in ((3, 7), small, plain, torch.tensor([3, 7], dtype=torch.int32), range(3, 8, 4), small[::-1][::-1]):
        assert torch.equal(loaded.generate(labels, seed=np.int64(5)), wanted)
    for seeds in (range(5, 7), np.array([5, 6]), torch.tensor([5, 6]), [np.uint32(5), 6]):
        assert torch.equal(loaded.generate([3, 7], seeds=seeds), wanted)
    noise = image_noise([5, 6], loaded.noise_shape)
    assert torch.equal(loaded.generate([3, 7], noise=noise.double()), wanted)
    assert loaded.generate(torch.tensor([]), seed=0).shape == (0, 1, 8, 8)


def test_a_request_beyond_memory_says_what_fits(cohort: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Cohort.load(cohort.folder)
    monkeypatch.setattr(checks, "available_memory", lambda: 2**24)
    with pytest.raises(ConditionError, match=r"100,000 images would need about .* and 16.0 MiB are available; .* fit"):
        loaded.check_memory(100_000)
    # Noise and pixels of so many fit; the student's work on them does not.
    with pytest.raises(ConditionError, match="10,000 images would need about"):
        loaded.generate([3] * 10_000, seed=0)
    assert loaded.generate([3] * 4, seed=0).shape == (4, 1, 8, 8)


def test_a_student_that_diverged_is_named(cohort: Manifest) -> None:
    """Also where the codec's clamp would have made a white image of an infinity."""
    loaded = Cohort.load(cohort.folder)
    with loaded.student(1) as student, torch.no_grad():
        next(student.student.parameters()).fill_(INF)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(WeightsError, match=r"1 of 1 samples of .* are not finite; .* train it again at a lower rate"):
        loaded.generate([3], seed=0)
    assert loaded.generate([4], seed=0).isfinite().all()


def test_parts_that_are_not_there(cohort: Manifest) -> None:
    loaded = Cohort.load(cohort.folder)
    for part in (2, -1, 0.5, None):
        with pytest.raises(PartitionError, match="part "), loaded.student(part):
            pass


def test_a_denoiser_names_a_class_that_it_does_not_know() -> None:
    denoiser, x, sigma = tiny_denoiser(0), torch.zeros(1, 1, 8, 8), torch.ones(1)
    with pytest.raises(ConditionError, match="classes are 0 to 9"):
        denoiser(x, sigma, torch.tensor([10]))
    for arguments in ((x, sigma, torch.tensor([0.5])), (x, torch.ones(2), torch.tensor([0])), (x, 1.0, torch.tensor([0]))):
        with pytest.raises(ConditionError):
            denoiser(*arguments)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (lambda noise, keys: noise * NAN, TrainingError, "2 samples of shard-0000.safetensors are not finite"),
        (lambda noise, keys: noise[:1], DataError, "what should answer noise gave a Tensor of shape"),
        (lambda noise, keys: None, DataError, "what should answer noise gave None"),
    ],
)
def test_answers_that_are_no_pairs(tmp_path: Path, answer: Any, error: type[MsdError], words: str) -> None:
    with pytest.raises(error, match=words):
        make_pairs(answer, (1, 8, 8), str(tmp_path), plan_of())
    assert not list(tmp_path.iterdir())


def test_a_shard_larger_than_memory_is_refused_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match=r"2 pairs of a shard would need about 1.0 KiB .* lower pairs.shard_size"):
        make_pairs(lambda noise, keys: noise, (1, 8, 8), tmp_path, plan_of())


def test_plain_things_still_pass(tmp_path: Path) -> None:
    partition = Partition([[0, 1], np.array([2])], [0.5, 0.25, np.float64(0.25)])
    assert partition.parts == ((0, 1), (2,))
    assert {type(one) for part in partition.parts for one in part} == {int}
    partition.save(str(tmp_path / "p.json"))
    assert Partition.load(tmp_path / "p.json").hash == partition.hash
    seeded = make_partition("balanced-kmeans", SplitRequest(4, 2, 2**63 - 1, lambda: np.eye(4)), (0.25,) * 4)
    assert seeded.num_parts == 2
    assert len(random_pairs()) == 60
    assert Solver("heun", np.int64(2))(blank, NOISE.double(), LABELS).dtype == torch.float32


def _numbers(model: type[BaseModel], prefix: str = "") -> list[tuple[str, type]]:
    """Every key of a recipe whose value is a number, with its kind."""
    found = []
    for name, field in model.model_fields.items():
        text = str(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _numbers(field.annotation, f"{prefix}{name}.")
        elif re.search(r"\b(int|float)\b", text) and "tuple" not in text:
            found.append((prefix + name, int if "int" in text else float))
    return found


NUMBERS = _numbers(Recipe)
RECIPE = load_recipe("digits").model_dump(mode="json")


def test_there_are_numbers_to_check() -> None:
    assert {("seed", int), ("dm.learning_rate", float), ("pairs.solver.num_steps", int)} <= set(NUMBERS)
    assert len(NUMBERS) > 50


@given(st.sampled_from(NUMBERS), st.data())
def test_every_number_of_a_recipe_has_a_range(number: tuple[str, type], data: st.DataObject) -> None:
    key, kind = number
    wrong = [True, False, "many", [], {}, NAN, INF, -INF, -(10**30), 10**400, float("1e308")]
    value = data.draw(st.sampled_from([*wrong, *([2.5, 2**63] if kind is int else [])]))
    with pytest.raises(RecipeError, match=re.escape(key.split(".")[-1])):
        revised(RECIPE, [f"{key}={_yaml(value)}"])


def _yaml(value: Any) -> str:
    words = {INF: ".inf", -INF: "-.inf"}
    if isinstance(value, float):
        return ".nan" if math.isnan(value) else words.get(value, f"{value:.17e}")
    return str(value).lower()


@given(st.integers(0, checks.MAX_SEED))
def test_every_seed_of_the_range_works(seed: int) -> None:
    assert revised(RECIPE, [f"seed={seed}", f"partition.seed={seed}"]).seed == seed
    assert Draw(seed, "x").normal(1).isfinite().all()
    assert image_noise([seed], (2,)).isfinite().all()
    assert image_noise([np.uint64(seed)], (2,)).equal(image_noise([seed], (2,)))


@settings(max_examples=40)
@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.binary(), st.lists(st.integers())))
def test_checks_answer_or_raise_their_error_whatever_comes(value: Any) -> None:
    for check in (
        lambda: checks.whole(value, "it", error=DataError),
        lambda: checks.number(value, "it", -1, 1, error=DataError),
        lambda: checks.path(value, "it", error=DataError),
        lambda: checks.shape(value, "it", error=DataError),
        lambda: checks.choice(value, ("a", "b"), "letter", error=DataError),
        lambda: checks.class_numbers(value, 3, error=DataError),
        lambda: checks.device(value),
    ):
        with contextlib.suppress(DataError, RunError):
            check()


def test_frozen_dataclasses_keep_their_fields() -> None:
    """Checks normalise, they do not add: what is stored of a spec is what was given."""
    assert dataclasses.asdict(spec())["noise_shape"] == (1, 8, 8)
    assert spec_from_json(spec_to_json(spec())) == spec()
