"""What runs a student: a `Generator` built from its folder. A new way to run one is a line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from msd import checks
from msd.diffusion.denoiser import Condition, Denoiser, condition_to
from msd.diffusion.solvers import one_step
from msd.errors import WeightsError
from msd.networks.folder import load_denoiser

NUM_ALIVE = 5
"""Of the largest tensors of a network: how many live at once while it runs."""


class Generator(Protocol):
    """A loaded one-step student. Calls from several threads at once are allowed."""

    @property
    def nbytes(self) -> int:
        """Memory its weights take."""
        ...

    @property
    def num_parameters(self) -> int: ...

    @property
    def bytes_per_image(self) -> int:
        """About how much memory an image takes while it is made, beside its noise and pixels."""
        ...

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        """Pixels `[N, *pixel_shape]` float32 in [-1, 1] on the CPU, from standard-normal `noise` `[N, *noise_shape]`.

        Raises WeightsError for samples that are not finite; before they are clamped, which would hide an infinity.
        """
        ...


class EagerGenerator:
    """A student run by torch, operation by operation."""

    def __init__(self, student: Denoiser, sigma_init: float, source: str = "the student"):
        self.student = student
        self._sigma_init, self._source = sigma_init, source
        self._device = next(student.parameters()).device

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> EagerGenerator:
        """Load and verify the student in `folder`. Raises WeightsError, also for a denoiser that takes many steps."""
        student = load_denoiser(folder, device)
        if student.spec.sigma_init is None:
            raise WeightsError(f"{folder} is not a one-step student: its denoiser.json has no sigma_init.")
        return cls(student, student.spec.sigma_init, str(folder))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.student.state_dict().values())

    @property
    def num_parameters(self) -> int:
        return self.student.num_parameters()

    @property
    def bytes_per_image(self) -> int:
        """Found by making one image: about five of the largest tensors in a U-Net live at once (measured: 4.9 in the digits
        students)."""
        sizes = [0]

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim:
                sizes.append(output.nbytes // max(1, len(output)))

        hooks = [module.register_forward_hook(note) for module in self.student.modules() if not list(module.children())]
        try:
            self.generate(torch.zeros(1, *self.student.spec.noise_shape), torch.zeros(1, dtype=torch.long))
        finally:
            for hook in hooks:
                hook.remove()
        return NUM_ALIVE * max(sizes)

    @torch.inference_mode()
    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        samples = one_step(self.student, noise.to(self._device), condition_to(condition, self._device), self._sigma_init)
        if bad := checks.num_not_finite(samples):
            raise WeightsError(
                f"{bad} of {len(samples)} samples of {self._source} are not finite; its weights are of a training that "
                "diverged: train it again at a lower rate."
            )
        return self.student.spec.codec.decode(samples).cpu()


BACKENDS: dict[str, Callable[[Path, torch.device], Generator]] = {"eager": EagerGenerator.load}
