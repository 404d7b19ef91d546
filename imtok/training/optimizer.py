"""AdamW that skips a step on the device where the loss was not finite, and whose state goes into a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from imtok.training.gradient_sums import GradientSums


class Optimizer:
    """AdamW over some parameters; the caller gives the learning rate of each step."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, betas: tuple[float, float], weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=learning_rate, betas=betas, weight_decay=weight_decay, fused=True
        )
        self.sums = GradientSums(self.parameters)  # over ranks; before `clip`

    def clip(self, norm: float) -> Tensor:
        """Scale the gradient down to `norm` where it is longer; return its norm before, ()."""
        return nn.utils.clip_grad_norm_(self.parameters, norm)

    def step(self, learning_rate: float, finite: Tensor) -> None:
        """Change the parameters where `finite`, () bool, is true; forget the gradient in any case."""
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.found_inf = (~finite).float()  # type: ignore[attr-defined]  # the fused kernel reads it
        self.adamw.step()
        self.adamw.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimizer state by the number of the parameter and the name of the value."""
        state = self.adamw.state_dict()["state"]
        return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Restore the state in the memory order of the parameters, since the fused kernel goes by storage."""
        state = self.adamw.state_dict()
        for name, value in state_dict.items():
            index, field_name = name.split(".", 1)
            parameter = self.parameters[int(index)]
            if value.shape == parameter.shape:
                value = torch.empty_like(parameter).copy_(value)
            state["state"].setdefault(int(index), {})[field_name] = value
        self.adamw.load_state_dict(state)
