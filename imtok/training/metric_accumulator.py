"""The metrics since the last line of the log, summed on the device of the networks so that no step waits for them."""

# Axes: B batch, K codes, Q codebooks.

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from imtok.distributed import is_distributed, is_first_rank, sum_over_ranks, sum_to_first_rank
from imtok.training.checkpoint import under


class MetricAccumulator:
    """Sums of scalars and counts of codes; only reading them waits for a GPU.

    Scalars are those of the joint batch, the same on every rank; counts are of the rank's own codes until `gather`.
    """

    def __init__(self, num_codebooks: int, num_codes: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_codebooks, num_codes, dtype=torch.int64, device=device)  # (Q, K)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)  # steps
        self.sums: dict[str, Tensor] = {}  # by name (2,) float64: the sum, and how many were summed

    def add(self, values: Mapping[str, Tensor | float], finite: Tensor) -> None:
        """Add the scalars of one step; where `finite`, () bool, is false, count a skipped step instead."""
        for name, value in values.items():
            pair = torch.stack([self._scalar(value), self._scalar(1.0)])
            self._sum(name).add_(torch.where(finite, pair, 0.0))
        self.skipped += ~finite

    def count(self, codes: Tensor) -> None:
        """Count codes (B, h, w), or (B, h, w, Q)."""
        columns = codes.reshape(-1, len(self.counts)).T.contiguous()  # (Q, N)
        self.counts.scatter_add_(1, columns, torch.ones_like(columns))

    def gather(self) -> None:
        """Bring the counts of all ranks to the first rank, and leave zeros on the others; all must call.

        All else is the same on every rank already.
        """
        sum_to_first_rank(self.counts)

    def means(self) -> dict[str, float]:
        """Return the mean of each scalar over the steps that gave it, and the number of skipped steps."""
        pairs = {name: pair.tolist() for name, pair in sorted(self.sums.items())}
        means = {name: total / number for name, (total, number) in pairs.items() if number}
        return means | {"skipped_steps": int(self.skipped)}

    def clear(self) -> None:
        """Begin the next line of the log."""
        self.sums = {}
        self.counts.zero_()
        self.skipped.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything by name, for a checkpoint."""
        sums = {f"sums.{name}": pair for name, pair in self.sums.items()}
        return {"counts": self.counts, "skipped": self.skipped, **sums}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go back to what `state_dict` returned on the first rank, which alone takes the counts."""
        device = self.counts.device
        self.counts.copy_(state_dict["counts"]).mul_(is_first_rank())
        self.skipped.copy_(state_dict["skipped"])
        self.sums = {name: pair.to(device) for name, pair in under(state_dict, "sums.").items()}

    def _scalar(self, value: Tensor | float) -> Tensor:
        return _scalar(value, self.counts.device)

    def _sum(self, name: str) -> Tensor:
        if name not in self.sums:
            self.sums[name] = torch.zeros(2, dtype=torch.float64, device=self.counts.device)
        return self.sums[name]


def joint_metrics(
    metrics: Mapping[str, Tensor | float], share: float, device: torch.device
) -> dict[str, Tensor | float]:
    """Return the metrics of a step over all ranks, this rank's weighed by its `share`, in one exchange.

    The ranks have the same names in the same order.
    """
    if not is_distributed() or not metrics:
        return dict(metrics)
    sums = share * torch.stack([_scalar(value, device) for value in metrics.values()])
    sum_over_ranks(sums)
    return dict(zip(metrics, sums.unbind(), strict=True))


def _scalar(value: Tensor | float, device: torch.device) -> Tensor:
    """Return the value as () float64, made on the device: a copy from the CPU would wait for it."""
    if isinstance(value, Tensor):
        return value.detach().to(device, torch.float64)
    return torch.full((), value, dtype=torch.float64, device=device)
