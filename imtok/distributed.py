"""Sums, draws and choices over all ranks of a process group, of rows that are spread over the ranks.

The joint batch is the ranks' rows one after the other. Ranks may hold different numbers of rows, and none; every rank
must call. Without a process group the joint batch is the batch.
"""

# Axes: N rows of this rank, D dimensions, K candidates, R ranks.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Return whether a process group exists."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over ranks."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)


def from_first_rank(tensor: Tensor) -> Tensor:
    """Return the first rank's tensor on every rank; shapes must agree."""
    if is_distributed():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


@contextmanager
def raising_together(device: torch.device, elsewhere: Exception) -> Iterator[None]:
    """Raise a ValueError of one rank there, and `elsewhere` on all other ranks.

    A rank that raised alone would leave the others waiting for it.
    """
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
        raise elsewhere


def joint_size(rows: Tensor) -> tuple[int, int]:
    """Count the rows (N, D) of the joint batch, and those of them before this rank's."""
    if not is_distributed():
        return len(rows), 0
    rank = dist.get_rank()
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    sizes[rank] = len(rows)
    dist.all_reduce(sizes)
    lengths = sizes.tolist()
    return sum(lengths), sum(lengths[:rank])


def draw_rows(rows: Tensor, count: int) -> Tensor:
    """Draw random rows of the joint batch, the same on every rank: (N, D) -> (count, D).

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


def standard_deviation(rows: Tensor) -> Tensor:
    """Compute the standard deviation of the joint batch, the mean over dimensions: (N, D) -> ()."""
    total, _ = joint_size(rows)
    mean = rows.sum(dim=0)
    sum_over_ranks(mean)
    squares = (rows - mean / total).square().sum(dim=0)
    sum_over_ranks(squares)
    return (squares / total).sqrt().mean()


def rows_at_least_distance(distances: Tensor, rows: Tensor) -> Tensor:
    """Choose among the ranks' rows the one at the least distance, K times: (K,), (K, D) -> (K, D).

    Of equal distances the lower rank's row is chosen, as the earlier row is within a rank.
    """
    if not is_distributed():
        return rows
    table = distances.new_zeros(dist.get_world_size(), len(distances))  # (R, K)
    table[dist.get_rank()] = distances
    dist.all_reduce(table)
    won = table.argmin(dim=0) == dist.get_rank()
    chosen = torch.where(won.unsqueeze(1), rows, torch.zeros_like(rows))
    dist.all_reduce(chosen)
    return chosen
