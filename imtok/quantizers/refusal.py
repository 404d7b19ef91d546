"""Non-finite latents: all ranks refuse them together, before any of them learns."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from imtok.distributed import raising_together
from imtok.errors import LatentsError


def refusing_together(device: torch.device) -> AbstractContextManager[None]:
    """Raise LatentsError on every rank where the block raises a ValueError on one of them."""
    text = "another rank refused its latents, NaN or infinite values most likely; nothing is learned"
    return raising_together(device, LatentsError(text))


def refuse_non_finite(latents: Tensor, *, together: bool) -> None:
    """Raise LatentsError on NaN or infinite latents, and with `together` on those of any rank."""
    with refusing_together(latents.device) if together else nullcontext():
        if not torch.compiler.is_compiling() and not torch.isfinite(latents.detach()).all():
            raise LatentsError("the latents hold NaN or infinite values; no code exists")
