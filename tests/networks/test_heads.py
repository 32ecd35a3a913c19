"""Heads: sized from the tap, whatever its resolution; they learn from features and from the class."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from builders import tiny_denoiser
from msd.errors import RecipeError
from msd.networks.heads import Head, new_head
from msd.objectives.adversarial import discriminator_loss

SHAPES = [(16,), (4, 1, 1), (6, 2, 2), (5, 3, 3), (16, 4, 4), (8, 7, 7), (8, 8, 8), (8, 16, 16), (3, 5, 9)]


@pytest.mark.parametrize("kind", ["pooled", "strided"])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_features_give_a_logit_that_depends_on_them(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = Head(shape, 10, kind)
    features, keys = torch.randn(3, *shape).requires_grad_(), torch.tensor([0, 5, 9])
    logits = head(features, keys)
    assert logits.shape == (3,)
    logits.sum().backward()
    assert features.grad is not None
    assert (features.grad.flatten(1).abs().sum(1) > 0).all()  # a norm over one number alone would leave nothing


@pytest.mark.parametrize("kind", ["pooled", "strided"])
def test_frozen_features_in_attention_s_memory_order_are_learned_from(kind: str) -> None:
    """torch 2.13 crashed here: channels-last, and nobody asks for their gradient, as in the warm-up."""
    torch.manual_seed(0)
    head, keys = Head((64, 4, 4), 10, kind), torch.arange(6)
    features = torch.randn(6, 64, 4, 4)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        head.zero_grad()
        head(features.contiguous(memory_format=layout), keys).sum().backward()
        found.append([parameter.grad for parameter in head.parameters()])
    torch.testing.assert_close(*found)


def test_dmd2_s_head_at_its_size() -> None:
    """8x8 to 4x4 to 1x1 by two convolutions of 4 (METHOD: DMD2's code)."""
    convolutions = [layer for layer in Head((16, 8, 8), 2, "strided").trunk if isinstance(layer, nn.Conv2d)]
    assert [(layer.kernel_size, layer.stride) for layer in convolutions] == [((4, 4), (2, 2)), ((4, 4), (1, 1))]


def test_classes_are_told_apart_where_only_the_class_decides() -> None:
    """Real images of class 0 look like fakes of class 1 and the reverse: no judge without the class could learn that."""
    torch.manual_seed(0)
    head = Head((4, 2, 2), 2)
    features = torch.randn(64, 4, 1, 1).sign().expand(64, 4, 2, 2).contiguous()
    keys = (features[:, 0, 0, 0] > 0).long()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    start = discriminator_loss(head(features, keys), head(features, 1 - keys)).item()
    for _ in range(150):
        optimiser.zero_grad()
        loss = discriminator_loss(head(features, keys), head(features, 1 - keys))
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 < start


def test_weights_are_a_function_of_the_seed_and_nothing_else_moves() -> None:
    critic = tiny_denoiser(0)
    before = torch.get_rng_state()
    first, second, other = (new_head((16, 4, 4), critic, "pooled", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert not torch.equal(first.leave.weight, other.leave.weight)


def test_a_head_larger_than_the_critic_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"strided head .* more than the critic's .* adm\.head=pooled"):
        new_head((64, 8, 8), tiny_denoiser(0), "strided", 0)
