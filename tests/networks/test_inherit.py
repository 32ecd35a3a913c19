"""A student that inherits is the teacher where nothing was taken away, and nearer to it than a random one elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from builders import unet
from msd.data.images import load_images
from msd.diffusion.denoiser import Denoiser, DenoiserSpec
from msd.errors import WeightsError
from msd.networks.adapter import adapter_of
from msd.networks.build import build_unet
from msd.networks.channels import frequency_map, magnitude, strongest, take
from msd.networks.inherit import fresh, inherit
from msd.networks.shrink import candidates, smaller_config
from msd.networks.wiring import spread
from msd.recipe import load_recipe
from msd.teachers.folder import load_teacher

KINDS: dict[str, dict[str, Any]] = {
    "plain": unet((8, 16)),
    "attending": unet((16, 24, 32), 2, 16, (1, 2), add_attention=True),
    "same widths": unet((8, 8, 16), 2),
    "one head": unet((8, 16), attended=(0, 1), attention_head_dim=None),
    "default norms": unet((8, 16), add_attention=True, resnet_time_scale_shift="default"),
    "no middle": unet((8, 16), mid_block_type=None),
    "fourier": unet((8, 16), time_embedding_type="fourier"),
    "timestep classes": unet((8, 16), class_embed_type="timestep", num_class_embeds=None),
    "resampling blocks": unet((8, 16), 3, attended=(1,), downsample_type="resnet", upsample_type="resnet"),
}


def random_teacher(config: dict[str, Any], seed: int = 0) -> Denoiser:
    """A denoiser none of whose tensors is all alike."""
    size = config["sample_size"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_unet(config)
        for value in network.parameters():
            value.data += 0.1 * torch.randn_like(value)
    return Denoiser(network, DenoiserSpec((1, size, size), 10, sigma_max=30.0)).eval().requires_grad_(False)


def answer(denoiser: Denoiser) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(4, *denoiser.spec.noise_shape, generator=generator)
    with torch.no_grad():
        return denoiser(noise, torch.tensor([1.5, 3, 9, 25]), torch.tensor([0, 3, 6, 9]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_configuration_gives_an_exact_copy_that_can_be_trained(kind: str) -> None:
    teacher = random_teacher(KINDS[kind])
    student = inherit(teacher, KINDS[kind])
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    assert student.spec == teacher.spec
    assert not student.training
    trained = {name for name, value in student.named_parameters() if value.requires_grad}
    assert trained == {name for name, _ in student.named_parameters()} - {"network.model.time_proj.weight"}
    # Whether a gradient is asked for decides which of two kernels torch attends with: they round differently.
    assert torch.equal(answer(student.requires_grad_(False)), answer(teacher))


@pytest.mark.parametrize("kind", KINDS)
def test_every_smaller_configuration_inherits(kind: str) -> None:
    teacher = random_teacher(KINDS[kind])
    known = candidates(KINDS[kind])
    for candidate in (*known[1::5], known[-1]):
        student = inherit(teacher, candidate.config)
        assert student.num_parameters() == candidate.num_parameters
        assert answer(student).isfinite().all()


def test_channels_that_do_nothing_are_the_ones_that_go() -> None:
    """A teacher with a silent half, in every stream, group and block, is reproduced by a student without it.

    The silent channels repeat the statistics of the others, so that the group norms divide alike.
    """
    small = random_teacher(unet((8, 16), norm_num_groups=4), seed=1)
    large = fresh(small, unet((16, 32), norm_num_groups=4), seed=2)
    weights = adapter_of(small).model.state_dict()
    for name, value in adapter_of(large).model.state_dict().items():
        wide = weights[name]
        for dimension, length in enumerate(value.shape):
            if wide.shape[dimension] != length:
                is_read = dimension == 1 and name != "class_embedding.weight"
                wide = doubled(wide, dimension, reads=is_read)
        value.copy_(wide)
    # Twice the width has other frequencies of time; without time both networks see the same.
    for network in (small, large):
        adapter_of(network).model.time_embedding.linear_1.weight.data.zero_()
    assert torch.allclose(answer(large), answer(small), atol=1e-5)
    student = inherit(large, unet((8, 16), norm_num_groups=4))
    assert torch.allclose(answer(student), answer(small), atol=1e-4)


def doubled(value: Tensor, dimension: int, *, reads: bool) -> Tensor:
    """Each channel twice, side by side, as far as it is written; of the second nothing is read."""
    if reads:
        both = torch.stack([value, torch.zeros_like(value)], dimension + 1)
    else:
        both = torch.stack([value, value], dimension + 1)
    return both.flatten(dimension, dimension + 1)


def test_an_inherited_student_is_nearer_to_the_digits_teacher_than_a_random_one() -> None:
    """Before any training, at six noise levels from where images show to where noise is all there is."""
    teacher = load_teacher("packaged:digits").denoiser
    recipe = load_recipe("digits")
    images, generator = load_images(recipe.data), torch.Generator().manual_seed(1)
    chosen = torch.randint(len(images), (256,), generator=generator)
    clean, labels = teacher.spec.codec.encode(images.batch(chosen)), images.labels[chosen]
    noise = torch.randn(clean.shape, generator=generator)
    config = smaller_config(dict(adapter_of(teacher).model.config), 0.42).config
    students = {"inherited": inherit(teacher, config), "random": fresh(teacher, config, seed=0)}
    for sigma in (0.5, 1.0, 2.0, 5.0, 20.0, 80.0):
        levels, errors = torch.full((256,), sigma), {}
        with torch.no_grad():
            wanted = teacher(clean + sigma * noise, levels, labels)
            for name, student in students.items():
                errors[name] = float((student(clean + sigma * noise, levels, labels) - wanted).square().mean())
        assert errors["inherited"] < 0.8 * errors["random"], (sigma, errors)


def test_a_dropped_level_leaves_a_middle_that_passes_on() -> None:
    teacher = random_teacher(KINDS["plain"])
    student = inherit(teacher, unet((8,), up_block_types=["UpBlock2D"], down_block_types=["DownBlock2D"]))
    assert not adapter_of(student).model.get_parameter("mid_block.resnets.0.conv2.weight").any()
    assert not adapter_of(student).model.get_parameter("up_blocks.0.resnets.0.conv1.weight")[:, :8].any()
    assert answer(student).isfinite().all()


def test_fresh_is_random_by_its_seed_and_costs_nobody_random_numbers() -> None:
    teacher = random_teacher(KINDS["plain"])
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    students = [fresh(teacher, KINDS["plain"], seed) for seed in (0, 0, 1)]
    inherit(teacher, KINDS["plain"])
    assert torch.equal(torch.rand(2), expected)
    first, again, other = (student.state_dict()["network.model.conv_in.weight"] for student in students)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert students[0].spec == teacher.spec
    with pytest.raises(WeightsError, match="seed"):
        fresh(teacher, KINDS["plain"], -1)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (unet((8, 24)), "level 1 has 24 channels and the teacher's 16"),
        (unet((8, 16), 2), "2 blocks a level and the teacher 1"),
        (unet((4, 8, 16)), "3 levels and the teacher 2"),
        (unet((8, 16), in_channels=3), "in_channels is 3 and the teacher's 1"),
        (unet((8, 16), num_class_embeds=4), "num_class_embeds is 4 and the teacher's 10"),
        (unet((8, 16), size=16), "sample_size is 16 and the teacher's 8"),
        (unet((8, 16), attended=(1,)), "level 1 has attention and the teacher's has none"),
        (unet((8, 16), add_attention=True), "the middle has attention"),
        (unet((8, 16), time_embedding_dim=64), "the embedding of time has 64 channels and the teacher's 32"),
        (unet((8, 16), act_fn="gelu"), "act_fn is 'gelu' and the teacher's 'silu'"),
        (unet((8, 16)) | {"down_block_types": ["ResnetDownsampleBlock2D"] * 2}, "downsampling by resnet"),
    ],
)
def test_an_unrelated_network_is_refused_in_a_sentence(config: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        inherit(random_teacher(KINDS["plain"]), config)
    assert "`msd shrink`" in str(caught.value)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(WeightsError, match="a Linear cannot be saved or inspected"):
        inherit(Denoiser(torch.nn.Linear(2, 2), DenoiserSpec((2,), 3)), KINDS["plain"])


def test_the_strongest_channels_are_kept_in_order_and_evenly_from_each_group() -> None:
    scores = torch.tensor([1.0, 4, 3, 2, 9, 8, 7, 6])
    assert strongest(scores, 4, 1).tolist() == [4, 5, 6, 7]
    assert strongest(scores, 4, 2).tolist() == [1, 2, 4, 5]
    assert strongest(scores, 8, 4).tolist() == list(range(8))
    assert strongest(scores, 3, 4).tolist() == [4, 5, 6]
    assert magnitude([(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), 0)]).tolist() == [2.0, 0.0]
    assert take(torch.arange(3.0), 0, torch.tensor([2, -1]), missing=7).tolist() == [2, 7]


def test_blocks_are_kept_evenly_with_the_first_and_the_last() -> None:
    assert [spread(num, 4) for num in (1, 2, 3, 4)] == [[0], [0, 3], [0, 2, 3], [0, 1, 2, 3]]


def test_time_is_read_from_other_frequencies_as_before() -> None:
    """cos(t f) of a frequency between two others is about what both say; the noise levels in use give |t| below 2."""
    time = torch.linspace(-1.6, 1.1, 50)[:, None]

    def features(width: int) -> Tensor:
        angles = time * torch.exp(-torch.arange(width // 2) / (width // 2) * torch.tensor(10000.0).log())
        return torch.cat([angles.cos(), angles.sin()], 1)

    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    for smaller in (32, 24, 20):
        error = features(smaller) @ (weight @ frequency_map(32, smaller, 0)).T - features(32) @ weight.T
        assert error.abs().max() < (1e-5 if smaller == 32 else 0.5)
