"""A saved denoiser is what its checksums say, loads from one file and no other, and its hash is its content."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from builders import tiny_denoiser
from msd.diffusion.codec import AffineCodec
from msd.diffusion.denoiser import Denoiser, DenoiserSpec, FlowParameterisation, VPParameterisation
from msd.errors import TrainingError, WeightsError
from msd.files import sha256_file
from msd.networks.build import build_unet, unet_config
from msd.networks.facts import CONFIG, FACTS, WEIGHTS, config_sha256, denoiser_hash, read_facts
from msd.networks.folder import load_denoiser, save_denoiser, spec_from_json, spec_to_json
from msd.recipe import NetworkSection


def save(denoiser: Denoiser, folder: Path, **facts: Any) -> Path:
    folder.mkdir(parents=True)
    save_denoiser(denoiser, folder, **facts)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tiny_denoiser(0), tmp_path / "saved")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def record_again(folder: Path) -> None:
    """What a forger, or a careless script, would do: make the checksums fit."""
    sums = {"weights_sha256": sha256_file(folder / WEIGHTS), "config_sha256": config_sha256(folder)}
    edit(folder / FACTS, lambda facts: facts.update(sums))


def test_what_was_saved_comes_back(saved: Path) -> None:
    """Weights, spec, the architecture's own trainable parameters; frozen, in evaluation mode."""
    original, loaded = tiny_denoiser(0), load_denoiser(saved)
    assert loaded.spec == original.spec
    assert not loaded.training
    assert not any(value.requires_grad for value in loaded.parameters())
    for ours, theirs in zip(original.parameters(), loaded.copy().parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad == theirs.requires_grad


def test_random_features_stay_fixed_in_a_copy_of_what_was_loaded(tmp_path: Path) -> None:
    """diffusers keeps its Fourier features out of training; so must a student that starts from such a teacher."""
    config = unet_config((1, 8, 8), 10, NetworkSection(block_out_channels=(8, 16), norm_num_groups=4).model_dump())
    fourier = Denoiser(build_unet(config | {"time_embedding_type": "fourier"}), DenoiserSpec((1, 8, 8), 10))
    copied = load_denoiser(save(fourier, tmp_path / "fourier")).copy()
    fixed = [name for name, value in copied.named_parameters() if not value.requires_grad]
    assert fixed == ["network.model.time_proj.weight"]


def test_loading_leaves_the_random_stream_alone(saved: Path) -> None:
    """The weights that a network is built with before it is filled cost the caller no random number."""
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    load_denoiser(saved)
    assert torch.equal(torch.randn(4), expected)


def test_an_index_beside_the_weights_is_never_followed(saved: Path) -> None:
    """diffusers would prefer the shards it names to the file that was checked."""
    other = load_file(saved / WEIGHTS)
    save_file({name: value + 1 for name, value in other.items()}, saved / "other.safetensors", {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(other, "other.safetensors")}
    (saved / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    for ours, theirs in zip(tiny_denoiser(0).parameters(), load_denoiser(saved).parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("change", [{"norm_num_groups": 8}, {"flip_sin_to_cos": False}, {"add_attention": True}])
def test_an_edited_configuration_is_refused_and_is_another_denoiser(saved: Path, change: dict[str, Any]) -> None:
    """Values that leave every tensor's shape alone too: the weights would load, and mean something else."""
    before = denoiser_hash(saved)
    edit(saved / CONFIG, lambda config: config.update(change))
    assert denoiser_hash(saved) != before
    with pytest.raises(WeightsError, match=r"config\.json is damaged: its checksum is not the recorded one"):
        load_denoiser(saved)


def test_diffusers_own_notes_in_the_configuration_do_not_count(saved: Path) -> None:
    before = denoiser_hash(saved)
    edit(saved / CONFIG, lambda config: config.update(_diffusers_version="99", _name_or_path="elsewhere"))
    assert denoiser_hash(saved) == before
    load_denoiser(saved)


def test_attention_that_the_weights_lack_is_named(saved: Path) -> None:
    """diffusers would make it up at random, with a warning."""
    edit(saved / CONFIG, lambda config: config.update(add_attention=True))
    record_again(saved)
    with pytest.raises(WeightsError, match=r"do not belong together: the tensor mid_block\.attentions\.0\S+ is missing"):
        load_denoiser(saved)


def test_missing_unknown_and_misshapen_tensors_are_named(saved: Path) -> None:
    tensors = load_file(saved / WEIGHTS)
    for content, message in (
        ({name: value for name, value in tensors.items() if name != "conv_in.bias"}, r"conv_in\.bias is missing"),
        (tensors | {"spare": torch.zeros(1)}, "the network has no tensor spare"),
        (tensors | {"conv_in.bias": torch.zeros(9)}, r"conv_in\.bias has shape \(9,\), not \(8,\)"),
    ):
        save_file(content, saved / WEIGHTS)
        record_again(saved)
        with pytest.raises(WeightsError, match=message):
            load_denoiser(saved)


@pytest.mark.parametrize("change", [{"wings": 2}, {"norm_num_groups": 5}])
def test_a_configuration_that_builds_nothing_is_refused(saved: Path, change: dict[str, Any]) -> None:
    edit(saved / CONFIG, lambda config: config.update(change))
    record_again(saved)
    with pytest.raises(WeightsError, match="describes no network that can be built"):
        load_denoiser(saved)


def test_weights_are_one_file_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers splits above 10 GB unless told not to; here it is asked at what size it was told to."""
    import diffusers.models.modeling_utils as diffusers_saving

    split = diffusers_saving.split_torch_state_dict_into_shards
    sizes = []

    def spy(state: Any, max_shard_size: int | str, **rest: Any) -> Any:
        sizes.append(max_shard_size)
        return split(state, max_shard_size=max_shard_size, **rest)

    monkeypatch.setattr(diffusers_saving, "split_torch_state_dict_into_shards", spy)
    folder = save(tiny_denoiser(0), tmp_path / "one")
    assert sorted(path.name for path in folder.iterdir()) == sorted([WEIGHTS, CONFIG, FACTS])
    assert sizes
    assert min(int(size) for size in sizes) > 2**50


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_that_is_not_finite_is_saved(tmp_path: Path, value: float) -> None:
    denoiser = tiny_denoiser(0)
    with torch.no_grad():
        next(denoiser.parameters())[0] = value
    with pytest.raises(TrainingError, match=r"conv_in\.weight is not finite, so nothing was saved"):
        save(denoiser, tmp_path / "broken")
    assert not list((tmp_path / "broken").iterdir())


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (1, r"denoiser\.json was saved by an older msd \(schema 1\); make it again"),
        (3, r"saved by a newer msd \(schema 3, this one reads 2\); update msd"),
        (None, r"is not a saved denoiser's description"),
    ],
)
def test_another_schema_is_refused(saved: Path, schema: int | None, message: str) -> None:
    edit(saved / FACTS, lambda facts: facts.update(schema=schema))
    for read in (read_facts, load_denoiser, denoiser_hash):
        with pytest.raises(WeightsError, match=message):
            read(saved)


SPECS = st.builds(
    DenoiserSpec,
    noise_shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    num_conditions=st.integers(1, 1000),
    parameterisation=st.one_of(st.just(FlowParameterisation(1000.0)), st.just(VPParameterisation("v", (0.9, 0.5, 0.1)))),
    codec=st.builds(AffineCodec, st.floats(-1, 1), st.floats(0.1, 4)),
    sigma_init=st.none() | st.floats(0.1, 100),
    guidance=st.floats(1, 10),
)


@given(SPECS)
def test_a_spec_survives_its_file(spec: DenoiserSpec) -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


@given(st.data())
def test_unknown_and_missing_fields_of_a_spec_are_errors(data: st.DataObject) -> None:
    """At the top, in the parameterisation and in the codec."""
    value = spec_to_json(DenoiserSpec((1, 8, 8), 10))
    inner = data.draw(st.sampled_from([value, value["parameterisation"], value["codec"]]))
    if data.draw(st.booleans()):
        inner["wing"] = 1
        message = "unknown field 'wing'"
    else:
        name = data.draw(st.sampled_from(sorted(inner)))
        del inner[name]
        message = f"lacks '{name}'|kind None"
    with pytest.raises(WeightsError, match=message):
        spec_from_json(value)


CHANGED_SPECS = [
    {"sigma_init": 3.0},
    {"sigma_min": 0.01},
    {"sigma_max": 20.0},
    {"guidance": 2.0},
    {"licence": "CC0"},
    {"codec": AffineCodec(scale=2.0)},
    {"codec": AffineCodec(shift=0.1)},
    {"parameterisation": FlowParameterisation()},
    {"num_conditions": 9},
    {"noise_shape": (1, 4, 16)},
]
SAFE_CONFIG = ["norm_eps", "flip_sin_to_cos", "freq_shift", "dropout", "norm_num_groups", "act_fn", "sample_size"]


@given(st.data())
@settings(max_examples=30)
def test_any_change_of_content_is_another_denoiser_and_a_copy_is_not(data: st.DataObject) -> None:
    """A weight, a configuration value, a field of the spec; while the place and what else is noted do not count."""
    with tempfile.TemporaryDirectory() as place:
        original = save(tiny_denoiser(0), Path(place, "original"))
        before = denoiser_hash(original)
        copied = Path(place, "elsewhere", "copy")
        shutil.copytree(original, copied)
        edit(copied / FACTS, lambda facts: facts.update(lineage=["somewhere"]))
        assert denoiser_hash(copied) == before

        kind = data.draw(st.sampled_from(["weight", "file", "config", "spec"]))
        denoiser = tiny_denoiser(0)
        if kind == "weight":
            weight = data.draw(st.sampled_from(list(denoiser.parameters())))
            with torch.no_grad():
                weight.view(-1)[data.draw(st.integers(0, weight.numel() - 1))] += 0.5
            changed = save(denoiser, Path(place, "changed"))
        elif kind == "file":
            changed = copied
            content = bytearray((copied / WEIGHTS).read_bytes())
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            (copied / WEIGHTS).write_bytes(content)
        elif kind == "config":
            changed = copied
            name = data.draw(st.sampled_from(SAFE_CONFIG))
            edit(copied / CONFIG, lambda config: config.update({name: "changed"}))
        else:
            denoiser.spec = replace(denoiser.spec, **data.draw(st.sampled_from(CHANGED_SPECS)))
            changed = save(denoiser, Path(place, "changed"))
        assert denoiser_hash(changed) != before


def test_whoever_may_read_the_configuration_may_read_the_weights(tmp_path: Path) -> None:
    """A server may run as somebody else than the training."""
    save_denoiser(tiny_denoiser(0), tmp_path / "denoiser")
    assert len({(tmp_path / "denoiser" / name).stat().st_mode for name in (WEIGHTS, CONFIG, FACTS)}) == 1
