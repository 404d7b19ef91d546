"""Counts and sums per code for codebooks that learn by moving averages, without a one-hot matrix."""

# Axes: N vectors, D dimensions, K codes.

from __future__ import annotations

import torch
from torch import Tensor


def codebook_statistics(latents: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Count the vectors of each code and sum them: (N, D), (N,) int64 -> (K,), (K, D) float.

    Both have the dtype of the latents, at least float32: bfloat16 cannot count beyond 256. The same input gives the
    same bits, on a GPU too.

    Raises ValueError on shapes that do not fit and on codes that are not whole numbers in [0, K).
    """
    _check(latents, codes, num_codes)
    latents = latents.detach().to(torch.promote_types(latents.dtype, torch.float32))
    counts = torch.bincount(codes, minlength=num_codes)
    if latents.device.type == "cpu":  # where index_add_ adds in the order of the rows
        sums = latents.new_zeros(num_codes, latents.shape[1]).index_add_(0, codes, latents)
    else:
        sums = sums_by_segment(latents, codes, counts)
    return counts.to(latents.dtype), sums


def _check(latents: Tensor, codes: Tensor, num_codes: int) -> None:
    if latents.ndim != 2 or codes.shape != latents.shape[:1]:
        raise ValueError(f"latents {tuple(latents.shape)} and codes {tuple(codes.shape)} must be (N, D) and (N,)")
    if codes.dtype != torch.int64:
        raise ValueError(f"codes are {codes.dtype}, expected torch.int64")
    if len(codes):
        low, high = (int(bound) for bound in codes.aminmax())  # a pass over N numbers where the sums take N x D
        if low < 0 or high >= num_codes:
            raise ValueError(f"codes span [{low}, {high}], expected [0, {num_codes})")


def sums_by_segment(latents: Tensor, codes: Tensor, counts: Tensor) -> Tensor:
    """Sum the vectors of each code, (K, D): sorted by code, then each run added in order, with no atomic sums."""
    order = codes.argsort(stable=True)
    return torch.segment_reduce(latents[order], "sum", lengths=counts)
