"""Optimizer state of codes that were moved: it belongs to their old place and is cleared."""

# Axes: K codes.

from __future__ import annotations

import torch
from torch import Tensor, nn

from imtok.quantizers.codebook import CodebookQuantizer


@torch.no_grad()
def forget_moved_codes(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Clear the gradient and the optimizer state of all codes in `module` that a restart or clustering has moved.

    Call it between `backward` and `step`: Adam's `exp_avg` of the old place would carry the code away from its new one
    for some steps. Any optimizer will do: in each state tensor with the shape of the codebook, the rows of the moved
    codes are set to zero, their initial value. Returns the moved codes, (K,) bool, by the name of their quantizer.
    """
    moved = {}
    for name, part in module.named_modules():
        codes = part.take_moved_codes() if isinstance(part, CodebookQuantizer) else None
        if codes is None:
            continue
        moved[name] = codes
        codebook = part.codebook
        kept = [value for value in optimizer.state.get(codebook, {}).values() if isinstance(value, Tensor)]
        for tensor in [codebook.grad, *kept]:
            if tensor is not None and tensor.shape == codebook.shape:
                tensor.masked_fill_(codes.unsqueeze(1), 0)
    return moved
