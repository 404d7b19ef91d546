"""The EMA model: the tokenizer with an exponential moving average of its weights, which is what a run is for."""

# Axes: K codes.

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from imtok.tokenizer import Tokenizer
from imtok.training.schedule import ema_decay


class EMA:
    """A copy of the tokenizer that follows it."""

    def __init__(self, tokenizer: Tokenizer, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(tokenizer).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, tokenizer: Tokenizer, steps: int, finite: Tensor) -> None:
        """Follow the tokenizer after `steps` steps, where `finite`, () bool, is true of the last."""
        weight = (1 - ema_decay(steps, self.decay)) * finite.float()
        pairs = zip(self.model.parameters(), tokenizer.parameters(), strict=True)
        learned = [(mean, live) for mean, live in pairs if live.requires_grad]
        change = torch._foreach_sub([live for _, live in learned], [mean for mean, _ in learned])
        torch._foreach_mul_(change, weight)
        torch._foreach_add_([mean for mean, _ in learned], change)
        # Buffers are copied: an EMA codebook is an average already, and one averaged again lags behind the encoder
        # (0.18 dB on CIFAR-10 with 1024 codes).
        for target, buffer in zip(self.model.buffers(), tokenizer.buffers(), strict=True):
            target.copy_(buffer)

    @torch.no_grad()
    def restart_codes(self, tokenizer: Tokenizer, moved: Mapping[str, Tensor]) -> None:
        """Copy codes that a dead-code restart has moved, (K,) bool by quantizer: a mean would lag behind."""
        for name, codes in moved.items():
            live, mean = (each.get_parameter(f"{name}.codebook") for each in (tokenizer, self.model))
            mean.copy_(torch.where(codes.unsqueeze(1), live, mean))
