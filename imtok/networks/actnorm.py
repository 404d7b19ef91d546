"""ActNorm: a scale and shift for each channel, which the first batch sets (Kingma & Dhariwal, 2018, "Glow").

They are set so that this batch has mean 0 and standard deviation 1 afterwards; from then on they are parameters like
any others. As in taming-transformers the standard deviation is the unbiased one and 1e-6 is added to it; unlike there,
the statistics are those of the joint batch of all ranks, since ranks that started apart would stay apart.
"""

# Axes: B batch, C channels, H x W grid, N = B*H*W values of a channel.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from imtok.distributed import sum_over_ranks

_EPS = 1e-6


class ActNorm(nn.Module):
    """scale * (x + shift) for each channel; the identity until the first forward in training.

    That forward sets both from its batch, without chance, and `initialized` in the state dict says that it was done,
    so that a resumed run does not start again. A batch that gives no finite statistics (NaN or infinite values, or one
    value a channel) starts nothing; the next one may. With a process group every rank must call the first forward.
    """

    initialized: Tensor  # () 0 or 1; a float, as averages of models take no bool

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.float32))
        # Reading the buffer waits for the device, so that is done until it has been seen set, and after each loading.
        self._seen_initialized = False
        self.register_load_state_dict_post_hook(_look_again)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Read states of old versions too, where `initialized` is a bool."""
        name = f"{prefix}initialized"
        if name in state_dict:
            state_dict[name] = state_dict[name].to(self.initialized.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and not self._seen_initialized:
            self._start(x)
        return self.scale * (x + self.shift)

    def inverse(self, y: Tensor) -> Tensor:
        """Invert `forward`, once it has started: (B, C, H, W) -> the same shape."""
        return y / self.scale - self.shift

    def log_determinant(self, x: Tensor) -> Tensor:
        """Return log |det J| of forward's Jacobian J, for each image: (B, C, H, W) -> (B,)."""
        batch, _, height, width = x.shape
        return (height * width * self.scale.abs().log().sum()).expand(batch)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it waits for the device, once
    def _start(self, x: Tensor) -> None:
        if not self.initialized:
            self._standardise(x)
        self._seen_initialized = bool(self.initialized)

    @torch.no_grad()
    def _standardise(self, x: Tensor) -> None:
        """Set shift and scale so that this batch comes out with mean 0 and standard deviation 1."""
        values = x.to(torch.promote_types(self.scale.dtype, torch.float32)).movedim(1, 0).flatten(1)  # (C, N)
        count, total = values.new_tensor(values.shape[1]), values.sum(dim=1)
        sum_over_ranks(count, total)
        mean = (total / count).unsqueeze(1)
        squares = (values - mean).square().sum(dim=1)
        sum_over_ranks(squares)
        scale = 1 / ((squares / (count - 1)).sqrt() + _EPS)
        if torch.isfinite(mean).all() and torch.isfinite(scale).all():
            self.shift.copy_(-mean.view_as(self.shift))
            self.scale.copy_(scale.view_as(self.scale))
            self.initialized.fill_(1)


def _look_again(norm: ActNorm, _: Any) -> None:
    norm._seen_initialized = False
