"""Latents and codes that are refused: all ranks do so together, before any learns, and a compiled graph does so too."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from imtok.distributed import any_rank, raising_together
from imtok.errors import LatentsError

_HERE = "the latents hold NaN or infinite values; no code exists"
_ELSEWHERE = "another rank refused its latents, NaN or infinite values most likely; nothing is learned"


def refusing_together(device: torch.device) -> AbstractContextManager[None]:
    """Raise LatentsError on every rank where the block raises a ValueError on one of them."""
    return raising_together(device, LatentsError(_ELSEWHERE))


def refuse_where(bad: Tensor, text: str = _HERE, *, together: bool) -> None:
    """Raise LatentsError where `bad`, () bool, is true, and with `together` where it is so on any rank."""
    if any_rank(bad) if together else bad:
        raise LatentsError(text if bad else _ELSEWHERE)


def refuse_missing(codes: Tensor, *, together: bool) -> None:
    """Raise LatentsError where a kernel gave the code -1, its mark of a non-finite latent; see `refuse_where`."""
    if not torch.compiler.is_compiling():
        least = codes.min() if codes.numel() else codes.new_zeros(())
        refuse_where(least < 0, together=together)


def codes_of_finite(codes: Tensor, latents: Tensor) -> Tensor:
    """Return the codes of latents; a compiled graph raises LatentsError here on those that are NaN or infinite.

    Elsewhere the kernels find them. An exported graph holds no check, as it has to run without imtok.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        checked: Tensor = _codes_of_finite(codes, latents.detach())
        return checked
    return codes


def codes_in_range(codes: Tensor, num_codes: int) -> Tensor:
    """Return the codes; raises ValueError where one is outside [0, K), but for exported graphs."""
    if torch.compiler.is_exporting() or not codes.numel():
        return codes
    if torch.compiler.is_compiling():
        checked: Tensor = _codes_in_range(codes, num_codes)
        return checked
    _refuse_outside(codes, num_codes)
    return codes


# Operators of their own, so that a graph calls them without a look inside; they return copies, as an operator must.


@torch.library.custom_op("imtok::codes_of_finite", mutates_args=())
def _codes_of_finite(codes: Tensor, latents: Tensor) -> Tensor:
    if not torch.isfinite(latents).all():
        raise LatentsError(_HERE)
    return codes.clone()


@torch.library.custom_op("imtok::codes_in_range", mutates_args=())
def _codes_in_range(codes: Tensor, num_codes: int) -> Tensor:
    _refuse_outside(codes, num_codes)
    return codes.clone()


@_codes_of_finite.register_fake
@_codes_in_range.register_fake
def _(codes: Tensor, _: Tensor | int) -> Tensor:
    return torch.empty_like(codes)


def _refuse_outside(codes: Tensor, num_codes: int) -> None:
    whole = codes.long()  # torch.uint16 has no min
    low, high = int(whole.min()), int(whole.max())
    if low < 0 or high >= num_codes:
        raise ValueError(f"codes span [{low}, {high}], expected [0, {num_codes})")


def refuse_non_finite(latents: Tensor, *, together: bool) -> None:
    """Raise LatentsError on NaN or infinite latents; see `refuse_where`."""
    if not torch.compiler.is_compiling():
        refuse_where(~torch.isfinite(latents.detach()).all(), together=together)
