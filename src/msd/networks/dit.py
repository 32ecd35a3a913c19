"""Diffusion transformers for classes (Peebles and Xie 2022, arXiv 2212.09748), behind the one call of every network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from msd.networks.adapter import Adapter
from msd.networks.anatomies import DIT
from msd.networks.places import BOTTLENECK

if TYPE_CHECKING:
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel


class LabelledDiT(Adapter):
    """diffusers' DiTTransformer2DModel: labels are classes, and the one after the last is "no class"."""

    kind = DIT
    model: DiTTransformer2DModel

    def forward(self, x: Tensor, noise_level: Tensor, condition: Tensor) -> Tensor:
        output = self.model(x, noise_level, class_labels=condition, return_dict=False)[0]
        return output[:, : x.shape[1]]  # half of them is a learned variance, of which no denoiser knows anything

    def places(self) -> dict[str, nn.Module]:
        """`block.N` is its N-th block, the middle one also the bottleneck."""
        blocks = list(self.model.transformer_blocks)
        return {BOTTLENECK: blocks[len(blocks) // 2]} | {f"block.{number}": block for number, block in enumerate(blocks)}

    @staticmethod
    def features(output: Tensor) -> Tensor:
        """Tokens `[N, H W, C]` of a square of places as `[N, C, H, W]`."""
        side = round(output.shape[1] ** 0.5)
        return output.transpose(1, 2).unflatten(2, (side, side))


def build_dit(config: dict[str, Any]) -> LabelledDiT:
    """A randomly initialised DiTTransformer2DModel from its own keyword arguments."""
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    return LabelledDiT(DiTTransformer2DModel(**config))
