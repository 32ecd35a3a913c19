"""Counts are those of built networks, every candidate can be built, and the nearest one is chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import adm_unet, tiny_denoiser, unet
from msd.diffusion.denoiser import DenoiserSpec
from msd.errors import RecipeError, WeightsError
from msd.networks.anatomy import read_anatomy
from msd.networks.build import build_unet
from msd.networks.cost import work_of
from msd.networks.shrink import REACH, Candidate, candidates, smaller_config

DIGITS = unet((16, 32), norm_num_groups=8)
ATTENDING = unet((32, 48, 64), size=16, add_attention=True, norm_num_groups=8)
KINDS: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "attending": unet((32, 48, 64), 2, 16, (1, 2), add_attention=True, norm_num_groups=8),
    "one head": unet((8, 16), attended=(0,), attention_head_dim=None),
    "default norms": unet((8, 16), add_attention=True, resnet_time_scale_shift="default"),
    "no middle": unet((8, 8, 16), 2, mid_block_type=None),
    "fourier": unet((8, 16), time_embedding_type="fourier"),
    "learned": unet((8, 16), time_embedding_type="learned", num_train_timesteps=50),
    "timestep classes": unet((8, 16), class_embed_type="timestep"),
    "identity classes": unet((8, 16), class_embed_type="identity"),
    "own embedding": unet((8, 16), time_embedding_dim=40),
    "resampling blocks": unet((8, 16), attended=(0,), downsample_type="resnet", upsample_type="resnet"),
}


def built(config: dict[str, Any]) -> int:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return sum(value.numel() for value in build_unet(config).parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_as_they_are_built(kind: str) -> None:
    """The teacher, the smallest, and every seventh in between, of each way a network can be put together."""
    known = candidates(KINDS[kind])
    for candidate in (*known[::7], known[-1]):
        assert built(candidate.config) == candidate.num_parameters


@pytest.mark.parametrize(
    ("widths", "num_blocks", "num_parameters"),
    [((192, 384, 576, 768), 3, 295_899_267), ((160, 320, 320, 640), 3, 172_813_603), ((128, 256, 256, 512), 2, 85_943_555)],
)
def test_the_adm_networks_have_the_papers_sizes(widths: tuple[int, ...], num_blocks: int, num_parameters: int) -> None:
    config = adm_unet(widths, num_blocks)
    assert read_anatomy(config).num_parameters() == num_parameters == built(config)


@pytest.mark.parametrize(
    ("reduce", "widths", "num_blocks"), [(0.42, [160, 320, 320, 640], 3), (0.71, [128, 256, 256, 512], 2)]
)
def test_the_papers_reductions_choose_the_papers_networks(reduce: float, widths: list[int], num_blocks: int) -> None:
    chosen = smaller_config(adm_unet(), reduce)
    assert chosen.config == adm_unet(widths, num_blocks)
    assert round(chosen.cut, 2) == reduce


@pytest.mark.parametrize("config", [DIGITS, ATTENDING, unet((24, 48), size=14, norm_num_groups=8)])
def test_small_teachers_have_a_student_of_every_size_that_is_asked_for(config: dict[str, Any]) -> None:
    for reduce in (0.42, 0.71, 0.75, 0.83, 0.88):
        assert abs(smaller_config(config, reduce).cut - reduce) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_candidate_is_the_teacher_itself_and_no_two_are_the_same(kind: str) -> None:
    known = candidates(KINDS[kind] | {"_class_name": "UNet2DModel"})
    assert known[0] == Candidate(KINDS[kind], built(KINDS[kind]), 0.0) == smaller_config(KINDS[kind], 0)
    assert len({str(sorted(one.config.items())) for one in known}) == len(known)
    assert [one.num_parameters for one in known] == sorted((one.num_parameters for one in known), reverse=True)


@given(reduce=st.floats(0, 0.999), kind=st.sampled_from(["digits", "attending", "one head", "resampling blocks"]))
@settings(max_examples=25)
def test_the_nearest_is_chosen_and_runs(reduce: float, kind: str) -> None:
    config = KINDS[kind]
    distance = min(abs(one.cut - reduce) for one in candidates(config))
    if distance > REACH:
        with pytest.raises(RecipeError, match="the nearest save"):
            smaller_config(config, reduce)
        return
    chosen = smaller_config(config, reduce)
    assert abs(chosen.cut - reduce) == distance
    assert chosen.cut == pytest.approx(1 - chosen.num_parameters / built(config))
    network, size = build_unet(chosen.config), config["sample_size"]
    noise = torch.randn(2, 1, size, size)
    assert network(noise, torch.rand(2), torch.tensor([0, 9])).shape == noise.shape


def test_groups_of_one_channel_are_not_made() -> None:
    """They would take each channel's mean away; where the teacher has them, they stay."""
    for candidate in candidates(DIGITS):
        assert min(candidate.config["block_out_channels"]) >= 2 * candidate.config["norm_num_groups"]
    assert any(one.config["norm_num_groups"] == 4 for one in candidates(unet((4, 8))))


def test_a_level_goes_only_where_another_sees_the_whole_picture() -> None:
    assert {len(one.config["block_out_channels"]) for one in candidates(DIGITS)} == {1, 2}
    assert {len(one.config["block_out_channels"]) for one in candidates(unet((16, 32), size=64))} == {2}
    assert {len(one.config["block_out_channels"]) for one in candidates(unet((16, 32), sample_size=None))} == {2}


def test_a_reduction_that_no_configuration_reaches_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"about 10% of the teacher's .* 23.2% \(14-28 channels, 1 block\).*give one"):
        smaller_config(DIGITS, 0.1)
    for wrong in (1, -0.1, 1.5, float("nan"), "0.4", True):
        with pytest.raises(RecipeError, match="the reduction"):
            smaller_config(DIGITS, wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_out_channels": [30, 64]}, "30 cannot be divided into 4 groups"),
        ({"block_out_channels": [16, 20], "add_attention": True}, "20 cannot be divided into heads of 8"),
        ({"add_attention": True, "attn_norm_num_groups": 5}, "32 cannot be divided into 5 groups"),
        ({"block_out_channels": [16, 32, 64]}, "3 widths, 2 down_block_types and 2 up_block_types"),
        ({"block_out_channels": [16, 0]}, "a width of block_out_channels 0"),
        ({"sample_size": 7}, "a size of 7 cannot be halved 1 times"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "blocks of type 'SkipDownBlock2D' are not known"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift 'spatial' is not known here"),
        ({"layers_per_block": 1.5}, "layers_per_block 1.5"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        candidates(unet((16, 32)) | change)
    assert "give" in str(caught.value)


def test_a_configuration_without_levels_is_refused() -> None:
    with pytest.raises(WeightsError, match="has no block_out_channels"):
        candidates({"sample_size": 8})


def test_work_is_counted_without_computing() -> None:
    """Fewer channels: less arithmetic, as many kernels. Fewer blocks: fewer of both. Random numbers stay as they were."""
    spec = DenoiserSpec((1, 8, 8), 10)
    torch.manual_seed(3)
    whole, narrow = work_of("unet2d", unet((16, 32), 2), spec), work_of("unet2d", unet((8, 16), 2), spec)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), drawn)
    shallow = work_of("unet2d", unet((16, 32), 1), spec)
    assert narrow.num_flops < 0.3 * whole.num_flops
    assert narrow.num_kernels == whole.num_kernels > shallow.num_kernels
    convolutions = 2 * 9 * 64 * (1 * 8 + 8 * 1)  # at least the first and the last one
    assert narrow.num_flops > convolutions
    tiny = tiny_denoiser(0)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        tiny(torch.randn(1, 1, 8, 8), torch.ones(1), torch.zeros(1, dtype=torch.long))
    assert work_of("unet2d", unet((8, 16)), spec).num_flops == counter.get_total_flops()
