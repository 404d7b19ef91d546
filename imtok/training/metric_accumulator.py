"""What happened since the last line of the log, summed where the networks compute so that no step waits for it."""

# Axes: B batch, K codes, Q codebooks.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from imtok.training.checkpoint import under


class Window:
    """Sums of scalars and occurrences of codes; reading them is the one moment a GPU is waited for."""

    def __init__(self, num_codebooks: int, num_codes: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_codebooks, num_codes, dtype=torch.int64, device=device)  # (Q, K)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)  # steps
        self.sums: dict[str, Tensor] = {}  # by name (2,) float64: the sum, and how many were summed

    def add(self, values: Mapping[str, Tensor | float], sound: Tensor) -> None:
        """Take in the scalars of one step; where `sound`, () bool, is false, note a skipped step instead."""
        for name, value in values.items():
            pair = torch.stack([self._scalar(value), self._scalar(1.0)])
            self._sum(name).add_(torch.where(sound, pair, 0.0))
        self.skipped += ~sound

    def count(self, codes: Tensor) -> None:
        """Take in codes (B, h, w), or (B, h, w, Q)."""
        columns = codes.reshape(-1, len(self.counts)).T.contiguous()  # (Q, N)
        self.counts.scatter_add_(1, columns, torch.ones_like(columns))

    def means(self) -> dict[str, float]:
        """The mean of each scalar over the steps that gave it, and how many steps were skipped."""
        pairs = {name: pair.tolist() for name, pair in sorted(self.sums.items())}
        means = {name: total / number for name, (total, number) in pairs.items() if number}
        return means | {"skipped_steps": int(self.skipped)}

    def clear(self) -> None:
        """Begin the next line of the log."""
        self.sums = {}
        self.counts.zero_()
        self.skipped.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a checkpoint."""
        sums = {f"sums.{name}": pair for name, pair in self.sums.items()}
        return {"counts": self.counts, "skipped": self.skipped, **sums}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` gave."""
        device = self.counts.device
        self.counts.copy_(tensors["counts"])
        self.skipped.copy_(tensors["skipped"])
        self.sums = {name: pair.to(device) for name, pair in under(tensors, "sums.").items()}

    def _scalar(self, value: Tensor | float) -> Tensor:
        """() float64, filled where it is: a copy from the CPU would be waited for."""
        if isinstance(value, Tensor):
            return value.detach().to(self.counts.device, torch.float64)
        return torch.full((), value, dtype=torch.float64, device=self.counts.device)

    def _sum(self, name: str) -> Tensor:
        if name not in self.sums:
            self.sums[name] = torch.zeros(2, dtype=torch.float64, device=self.counts.device)
        return self.sums[name]
