"""Devices, threads and precision: the only place that knows what the tensors run on (and, later, of ranks)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from msd.errors import RunError


@dataclass(frozen=True)
class Engine:
    """Where a training runs. float32 everywhere: bf16 gains nothing on CPU at these widths, fp16 diverges (DMD2)."""

    device: torch.device

    @classmethod
    def on(cls, device: str, threads: int | None = None) -> Engine:
        """Check that `device` exists, set CPU threads. Raises RunError."""
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise RunError(f"{device!r} is not a device; use cpu, cuda or cuda:N.") from error
        if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
            raise RunError(f"device {device} is not there (torch sees {torch.cuda.device_count()} GPUs); use --device cpu.")
        if chosen.type not in ("cpu", "cuda"):
            raise RunError(f"device {device} is not supported; use cpu, cuda or cuda:N.")
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(chosen)

    def generator(self, seed: int) -> torch.Generator:
        """A seeded generator on the device; all randomness of a training comes from one of these."""
        return torch.Generator(self.device).manual_seed(seed)
