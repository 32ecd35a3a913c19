"""Discriminator heads: from the features at a tap, and the class, to one logit an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msd.diffusion.codec import Shape
from msd.diffusion.denoiser import Denoiser
from msd.errors import RecipeError

MAX_GROUPS = 32
FEWEST_A_GROUP = 4
"""Channels that a group is normalised over at least: at a single place, a group of one would be normalised to nothing."""
LAST_SIZE = 4
"""Places a side below which a strided head takes all of them in one step (DMD2: 8x8, 4x4, 1x1)."""


class Head(nn.Module):
    """Logits that images are real: w.h + b + e(key).h, h being what a trunk makes of features (class projection, Miyato and
    Koyama 2018).

    `shape` is that of one sample's features, `[C, H, W]` of any size, or `[C]`; its number of channels is kept throughout.
    """

    def __init__(self, shape: Shape, num_conditions: int, kind: str = "pooled"):
        super().__init__()
        channels, *places = shape
        height, width = places or (1, 1)
        self.trunk = TRUNKS[kind](channels, height, width)
        self.leave = nn.Linear(channels, 1)
        self.of_class = nn.Embedding(num_conditions, channels)
        # What distinguishes classes is learned; at first all are judged alike.
        nn.init.zeros_(self.of_class.weight)

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Logits `[N]` float32 of `features` `[N, C, H, W]` or `[N, C]` for images of the classes `keys` `[N]` int64."""
        if features.ndim == 2:
            features = features[:, :, None, None]
        # On the CPU, torch (2.13) crashes in the way back through a group norm whose input is channels-last, as attention's
        # answer is, and asks for no gradient, as a frozen critic's does.
        hidden = self.trunk(features.contiguous()).mean((2, 3))
        return (self.leave(hidden).squeeze(1) + (self.of_class(keys) * hidden).sum(1)).float()


def _norm(channels: int) -> nn.GroupNorm:
    most = max(1, min(MAX_GROUPS, channels // FEWEST_A_GROUP))
    return nn.GroupNorm(max(num for num in range(1, most + 1) if channels % num == 0), channels)


def _pooled(channels: int, height: int, width: int) -> nn.Sequential:
    """One look at each place and its neighbours; the mean over places follows."""
    return nn.Sequential(_norm(channels), nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU())


def _strided(channels: int, height: int, width: int) -> nn.Sequential:
    """Halved until few places are left, then all of those at once."""
    layers: list[nn.Module] = []
    while min(height, width) > LAST_SIZE:
        layers += [nn.Conv2d(channels, channels, 4, stride=2, padding=1), _norm(channels), nn.SiLU()]
        height, width = height // 2, width // 2
    layers += [nn.Conv2d(channels, channels, (height, width)), _norm(channels), nn.SiLU()]
    return nn.Sequential(*layers)


TRUNKS = {"pooled": _pooled, "strided": _strided}


def new_head(shape: Shape, critic: Denoiser, kind: str, seed: int) -> Head:
    """A head of `kind` with weights from `seed`, for features of `shape`.

    Raises RecipeError for one larger than `critic`.
    """
    check_head(shape, critic.spec.num_conditions, kind, critic.num_parameters())
    # The initial weights are drawn from torch's global generator: fork it so that nothing else moves.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Head(shape, critic.spec.num_conditions, kind)


def check_head(shape: Shape, num_conditions: int, kind: str, num_critic: int) -> None:
    """Raises RecipeError for a head of `kind` on features of `shape` that is larger than a critic of `num_critic`
    parameters."""
    with torch.device("meta"):  # only its shapes
        head = Head(shape, num_conditions, kind)
    size = sum(parameter.numel() for parameter in head.parameters())
    if size > num_critic:
        raise RecipeError(
            f"a {kind} head on features of shape {tuple(shape)} has {size:,} parameters, more than the critic's "
            f"{num_critic:,}; set adm.tap to a place with fewer channels, or adm.head=pooled."
        )
