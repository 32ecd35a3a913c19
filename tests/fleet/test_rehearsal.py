"""What a rehearsal says is held in memory is what the real stage holds: parameters, moments, averages, activations."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import materials, random_pairs, save_teacher, tiny_denoiser, unet
from msd.conditions.partition import Partition
from msd.diffusion.denoiser import DenoiserSpec
from msd.fleet.rehearsal import Networks, Rehearsal, rehearse, student_materials
from msd.networks.adapter import adapter_of
from msd.networks.cost import weightless
from msd.recipe import DMSection, TSMSection
from msd.stages.dm import DistributionMatching
from msd.training.checkpoint import num_bytes
from msd.training.ledger import AsDevices, Ledger
from msd.training.loop import steps

SPEC = DenoiserSpec(noise_shape=(1, 8, 8), num_conditions=10)
DM = DMSection(num_updates=3, batch_size=8, regression={"batch_size": 8})  # pyright: ignore[reportArgumentType]


def rehearsed(settings: Any = DM, config: dict[str, Any] | None = None, name: str = "dm", **more: Any) -> Rehearsal:
    own = config or adapter_of(tiny_denoiser(0)).config()
    return rehearse(name, settings, student_materials(Networks("unet2d", SPEC, own, own), 60), **more)


def _of_batch(size: int) -> DMSection:
    return DM.model_copy(update={"batch_size": size, "regression": DM.regression.model_copy(update={"batch_size": size})})


def test_what_is_fixed_is_what_the_real_stage_has(tmp_path: Path) -> None:
    """Parameters of each role, and bytes of moments and average after a step that was really taken."""
    teacher = save_teacher(tmp_path / "teacher")
    made = materials(teacher, Partition.whole((0.1,) * 10), pairs=random_pairs())
    stage = DistributionMatching(DM, made)
    list(itertools.islice(steps(stage, made.engine, 0), 1))
    found, roles = rehearsed(), stage.roles.values()
    assert found.parameters == {"teacher": teacher.denoiser.num_parameters()} | {
        name: role.module.num_parameters() for name, role in stage.roles.items()
    }
    moments = sum(num_bytes(role.optimiser.state_dict()["state"]) for role in roles)
    num_tensors = sum(len(role.parameters) for role in roles)
    assert moments == found.fixed["optimisers"] + 4 * num_tensors  # each counts its updates
    average = stage.roles["student"].average
    assert average is not None
    assert found.fixed["averages"] == num_bytes(average.state_dict())
    assert found.fixed["data"] == 0  # pairs stay where they lie
    assert found.need().gradients == 4 * stage.roles["student"].module.num_parameters()


@pytest.mark.parametrize("config", [unet((8, 16)), unet((8, 16), attended=(1,), attention_head_dim=4)])
def test_what_is_kept_for_the_way_back_is_what_autograd_keeps(config: dict[str, Any]) -> None:
    """Every storage that real autograd saves on the CPU, but for weights and what the caller holds; attention too."""
    num = 4
    with Ledger() as ledger, AsDevices("float32"), torch.device("meta"):
        denoiser = weightless("unet2d", config, SPEC)
        before = ledger.live
        foreseen = denoiser(torch.empty(num, 1, 8, 8), torch.empty(num), torch.empty(num, dtype=torch.long))
        kept = ledger.live - before
    del foreseen
    real, saved = weightless("unet2d", config, SPEC).to_empty(device="cpu"), dict[int, int]()
    own = {parameter.untyped_storage().data_ptr() for parameter in real.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = real(torch.randn(num, 1, 8, 8), torch.ones(num), torch.arange(num))
    assert kept == pytest.approx(sum(saved.values()) + answer.nbytes, rel=0.03)


DIT = {
    "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 1, "out_channels": 2, "num_layers": 2,
    "sample_size": 8, "patch_size": 2, "num_embeds_ada_norm": 10, "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False, "activation_fn": "gelu-approximate",
}  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "networks",
    [Networks("unet2d", SPEC, unet((8, 16)), unet((8, 16))), Networks("dit", SPEC, DIT, DIT, guidance=1.5, null_label=10)],
)
def test_a_step_of_any_batch_follows_from_two(networks: Networks, precision: Any) -> None:
    """Tensors' sizes are a number and another for each sample: what is said of a batch is what its own rehearsal says; a
    guided transformer's too."""
    whole, own = (rehearse("dm", one, student_materials(networks, 60), precision) for one in (DM, _of_batch(2)))
    assert whole.need(4).activations == own.need().activations
    assert whole.need().gradients == 4 * max(whole.parameters.values())
    assert len(whole.course.arrived) > 100  # moment by moment, not by peaks alone


def test_micro_batches_need_less_and_the_fewest_that_fit_are_found() -> None:
    found = rehearsed()
    peaks = {num: found.need(num).peak for num in (1, 2, 4, 8)}
    assert peaks[1] > peaks[2] > peaks[4] > peaks[8] > sum(found.fixed.values())
    assert [found.fewest_parts(peak) for peak in peaks.values()] == [1, 2, 4, 8]
    assert found.fewest_parts(peaks[8] - 1) is None


def test_a_stage_that_judges_held_out_samples_counts_them() -> None:
    """All at once, however few a batch has."""
    settings = TSMSection(num_updates=3, batch_size=2)
    judging = rehearsed(settings, name="tsm")
    not_judging = rehearsed(settings.model_copy(update={"held_out": 0.0}), name="tsm")
    assert not_judging.held_out == 0
    assert judging.need().activations == judging.held_out > not_judging.need().activations


def test_bfloat16_keeps_less_for_the_way_back() -> None:
    """Convolutions' inputs are halved; norms keep theirs in float32, as autocast has it. Weights are cast anew."""
    large = _of_batch(64)
    full, half = (rehearsed(large, precision=precision).need().activations for precision in ("float32", "bfloat16"))
    assert 0.5 * full < half < full
