"""Steps whose loss or gradient was not finite: their count, and when and how to give up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from imtok.config import TrainConfig

_PATIENCE = 20  # steps in a row that may be skipped


class SkippedSteps:
    """Counts of skipped steps, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        self.all = torch.zeros((), dtype=torch.int64, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def count(self, finite: Tensor) -> None:
        """Count one step, skipped where `finite`, () bool, is false."""
        self.all += ~finite
        self.in_a_row = torch.where(finite, 0, self.in_a_row + 1)

    def problem(self) -> str | None:
        """Describe the problem where step after step had to be skipped, else None; waits for a GPU."""
        in_a_row = int(self.in_a_row)
        if in_a_row < _PATIENCE:
            return None
        return f"the loss or its gradient was not finite in the last {in_a_row} steps, which were skipped"

    def state_dict(self) -> dict[str, Tensor]:
        """Return both counts."""
        return {"all": self.all, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore both counts."""
        self.all.copy_(state_dict["all"])
        self.in_a_row.copy_(state_dict["in_a_row"])


def suggestions(config: TrainConfig) -> str:
    """Name the settings that help against losses that are not finite, of those that are not made yet."""
    adversarial = config.adversarial
    settings = {
        f"lower optimizer.learning_rate (now {config.optimizer.learning_rate:g})": True,
        "set precision=fp32": config.precision != "fp32",
        f"lower adversarial.weight (now {adversarial.weight:g})": adversarial.enabled,
        f"lower adversarial.adaptive_max (now {adversarial.adaptive_max:g})": adversarial.adaptive,
    }
    return " or ".join(text for text, helps in settings.items() if helps) + " in a new run"
