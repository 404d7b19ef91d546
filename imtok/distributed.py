"""Sums, draws and nearest rows over all ranks, so that a codebook learns from the joint batch and is one everywhere.

The joint batch is the ranks' rows one after the other. Ranks may hold different numbers of rows, and none; every
rank must call. Without a process group the joint batch is the batch. What one rank refuses all ranks refuse, before
any of them learns: a rank that raised alone would leave the others waiting for it.
"""

# Axes: N rows of this rank, D dimensions, K codes, R ranks.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from imtok.errors import LatentsError


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over ranks."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)


@contextmanager
def refusing_together(device: torch.device) -> Iterator[None]:
    """A ValueError raised inside on one rank is raised on all of them after it."""
    if not is_distributed():
        yield
        return
    failure = None
    try:
        yield
    except ValueError as error:
        failure = error
    failures = torch.tensor(float(failure is not None), device=device)
    dist.all_reduce(failures)
    if failure is not None:
        raise failure
    if failures > 0:
        raise LatentsError("another rank refused its latents, NaN or infinite values most likely; nothing is learned")


def refuse_unfinite(latents: Tensor, together: bool) -> None:
    """Raise LatentsError on NaN or infinite latents, and with `together` on those of any rank."""
    with refusing_together(latents.device) if together else nullcontext():
        if not torch.isfinite(latents.detach()).all():
            raise LatentsError("the latents hold NaN or infinite values; no code exists")


def from_first_rank(tensor: Tensor) -> Tensor:
    """The first rank's tensor, on every rank; shapes must agree."""
    if is_distributed():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


def joint_size(rows: Tensor) -> tuple[int, int]:
    """How many rows (N, D) the joint batch has, and how many of them stand before this rank's."""
    if not is_distributed():
        return len(rows), 0
    rank = dist.get_rank()
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    sizes[rank] = len(rows)
    dist.all_reduce(sizes)
    lengths = sizes.tolist()
    return sum(lengths), sum(lengths[:rank])


def draw_rows(rows: Tensor, count: int) -> Tensor:
    """Random rows of the joint batch, on every rank the same: (N, D) -> (count, D).

    The first rank draws, as one process with the joint batch would. No row comes twice before all came once.
    """
    total, before = joint_size(rows)
    order = torch.randperm(total, device=rows.device)
    numbers = from_first_rank(order.repeat(-(-count // total))[:count]) - before
    here = (numbers >= 0) & (numbers < len(rows))
    drawn = rows.new_zeros(count, rows.shape[1])
    drawn[here] = rows[numbers[here]]
    sum_over_ranks(drawn)  # all but one of the summands are zero, so the rows keep their bits
    return drawn


def spread(rows: Tensor) -> Tensor:
    """Standard deviation of the joint batch, the mean over dimensions: (N, D) -> ()."""
    total, _ = joint_size(rows)
    mean = rows.sum(dim=0)
    sum_over_ranks(mean)
    squares = (rows - mean / total).square().sum(dim=0)
    sum_over_ranks(squares)
    return (squares / total).sqrt().mean()


def least_over_ranks(distances: Tensor, rows: Tensor) -> Tensor:
    """Of each code's candidates, one a rank, the row at the least distance: (K,), (K, D) -> (K, D).

    Equal distances go to the lower rank, as they go to the earlier row within a rank.
    """
    if not is_distributed():
        return rows
    table = distances.new_zeros(dist.get_world_size(), len(distances))  # (R, K)
    table[dist.get_rank()] = distances
    dist.all_reduce(table)
    won = table.argmin(dim=0) == dist.get_rank()
    least = torch.where(won.unsqueeze(1), rows, torch.zeros_like(rows))
    dist.all_reduce(least)
    return least


def is_distributed() -> bool:
    """Whether a process group exists."""
    return dist.is_available() and dist.is_initialized()
