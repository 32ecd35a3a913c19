"""How long a training takes on a GPU, by what others' trainings of the same kind took. No torch here.

The one method of this family whose authors say how long it took is DMD2 (Yin et al. 2024, arXiv 2405.14867; its code's
README): ImageNet at 64x64, EDM's ADM U-Net, bfloat16, 7 GPUs of a kind that is not named.
"""

from __future__ import annotations

from dataclasses import dataclass

from msd.training.passes import ALL, INPUT

NUM_GPUS, BATCH, RATIO = 7, 280, 5
"""Of all records: batch of all GPUs together, and updates of the critic to one of the student."""
FORWARD_FLOPS = 219_313_569_792
"""One evaluation of that network for one sample (`networks.cost`, blueprint edm-imagenet64)."""
TAP_SHARE = 0.2855
"""Of it, what is computed when the discriminator's features are there."""
SMALLEST = 10**9
"""Operations of an evaluation below which a GPU waits for launches, and no record says anything."""


@dataclass(frozen=True)
class Record:
    """A training: its iterations (updates of the critic), whether it had a discriminator, and hours."""

    name: str
    num_iterations: int
    has_gan: bool
    hours: float

    @property
    def num_flops(self) -> float:
        """Samples for the critic, its forward pass and the way back; every fifth iteration the student's way back, teacher
        and critic. With a discriminator also features of fakes and images, there and back."""
        passes = 1 + (1 + ALL) + (ALL + 1 + 1) / RATIO
        if self.has_gan:
            passes += TAP_SHARE * (2 * (1 + ALL) + (1 + INPUT) / RATIO)
        return self.num_iterations * BATCH * passes * FORWARD_FLOPS

    @property
    def flops_per_gpu_second(self) -> float:
        return self.num_flops / (self.hours * 3600 * NUM_GPUS)


RECORDS = (
    Record("two time scales, no GAN", 410_000, False, 70),
    Record("GAN from scratch", 200_000, True, 53),
    Record("GAN resumed", 140_000, True, 38),
)
RATE = sum(record.num_flops for record in RECORDS) / sum(record.hours * 3600 * NUM_GPUS for record in RECORDS)
"""Operations that one of those GPUs did in a second, over all three: 6.4e13."""
SOURCE = (
    f"DMD2's trainings on ImageNet-64 ({', '.join(f'{record.hours:g} h' for record in RECORDS)} on {NUM_GPUS} GPUs of a "
    f"kind not named, in bfloat16), which come to {RATE / 1e12:.0f} TFLOP/s each; scaled by operations"
)


def gpu_hours(num_flops: int, forward_flops: int) -> float | None:
    """Hours of one GPU for `num_flops`; None for a network too small for the records, whose evaluation takes
    `forward_flops`."""
    return None if forward_flops < SMALLEST else num_flops / RATE / 3600
