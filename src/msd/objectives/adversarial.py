"""The GAN between student and discriminator (Goodfellow et al. 2014, non-saturating), as DMD2 and MSD's ADM stage have it.

A logit is the log odds that an image is real. Real and generated images are noised before they are judged, each with noise
of its own.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean of softplus(-l_real) + mean of softplus(l_fake), from logits `[N]` each; a scalar, 2 ln 2 where all is a guess.

    The negative log likelihood of the right answers, as softplus(-l) = -ln sigmoid(l) (DMD2, arXiv 2405.14867, sec. 4.3).
    """
    return softplus(-real_logits.float()).mean() + softplus(fake_logits.float()).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of softplus(-l_fake) over logits `[N]`; a scalar, ln 2 where the discriminator guesses.

    Non-saturating: its slope -sigmoid(-l) is steepest where the discriminator is sure that the image is generated.
    """
    return softplus(-fake_logits.float()).mean()


def approximate_r1(real_logits: Tensor, perturbed_logits: Tensor) -> Tensor:
    """Mean of (l(x) - l(x + a n))^2 over logits `[N]` of real images and of the same ones moved by small noise; a scalar.

    To first order in a it is a^2 times the squared norm of dl/dx, R1's penalty, without a gradient of a gradient (Lin et al.
    2025, arXiv 2501.08316; FastGen has a = 0.1).
    """
    return (real_logits.float() - perturbed_logits.float()).square().mean()


def accuracy(logits: Tensor, is_real: bool) -> Tensor:
    """Share of logits `[N]` on the right side of 0, a scalar; one at 0 is half right."""
    signed = logits if is_real else -logits
    return ((signed > 0).float() + 0.5 * (signed == 0).float()).mean()


def carrying(value: Tensor, samples: Tensor, gradient: Tensor) -> Tensor:
    """A scalar of the value `value` whose gradient with respect to `samples` `[N, ...]` is `gradient`, of their shape.

    For a gradient that is known already: what it came through is not walked a second time.
    """
    return value.detach() + ((samples - samples.detach()) * gradient.detach()).sum()


def mean_norm(gradient: Tensor) -> Tensor:
    """Mean over samples of the Euclidean norm of `gradient` `[N, ...]`; a scalar."""
    return gradient.float().flatten(1).norm(dim=1).mean()
