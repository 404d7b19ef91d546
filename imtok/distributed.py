"""Sums, means, draws and choices over all ranks of a process group, of rows that are spread over the ranks.

The joint batch is the ranks' rows one after the other. Ranks may hold different numbers of rows, and none; every rank
must call. Without a process group, and in a group of one, the joint batch is the batch.

Gradients have one convention. Each rank differentiates a mean over its own rows; whoever trains weighs it by the rank's
share of the joint rows, and adds the ranks' gradients (with equal shares that is their mean, which
DistributedDataParallel takes). What is no mean over rows takes the joint mean with the gradient of the rank's own: by
the chain rule the weighted sum is then the gradient of the joint function.
"""

# Axes: N rows of this rank, D dimensions, K candidates, R ranks.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_Tensor = TypeVar("_Tensor", bound=Tensor)

_BUCKET_BYTES = 2**25  # of one all-reduce of gradients: long enough for the network, short enough to be sent early
_DRAW_BYTES = 2**30  # of numbers that are drawn at once for the joint batch
_CHECKED_AT_ONCE = 2**22  # numbers
_PRIME = 65521


def is_distributed() -> bool:
    """Return whether there is a process group of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_rank() -> bool:
    """Return whether this process is the first rank, or the only one."""
    return not is_distributed() or dist.get_rank() == 0


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over ranks."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)


def sum_to_first_rank(tensor: Tensor) -> None:
    """Replace the first rank's tensor by the sum over ranks, and all others by zeros."""
    if is_distributed():
        dist.reduce(tensor, dst=0)
        if dist.get_rank() != 0:
            tensor.zero_()


def begin_sums(tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Begin to replace each tensor by its sum over ranks; the function returned waits for the end of that.

    The tensors are sent in flat buckets, each of one dtype, one after the other. They must not be touched meanwhile,
    and be the same number in the same order on every rank. On a GPU its stream alone waits.
    """
    if not is_distributed():
        return lambda: None
    sent = []
    for bucket in buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))

    def finish() -> None:
        for bucket, flat, work in sent:
            work.wait()
            pieces = torch.split(flat, [tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [piece.view(t.shape) for piece, t in zip(pieces, bucket, strict=True)])

    return finish


def buckets(tensors: Sequence[_Tensor]) -> Iterator[list[_Tensor]]:
    """Yield the tensors in order, in lists of one dtype and of about `_BUCKET_BYTES`."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[_Tensor] = []
        for tensor in tensors:
            if tensor.dtype != dtype:
                continue
            bucket.append(tensor)
            if sum(each.numel() * each.element_size() for each in bucket) >= _BUCKET_BYTES:
                yield bucket
                bucket = []
        if bucket:
            yield bucket


def joint_mean(mean: Tensor, count: int) -> Tensor:
    """Return the mean over the joint rows for one over this rank's `count` rows, with the gradient of the rank's own.

    Any shape, float; a rank without rows gives zeros. See the top of this module for what becomes of the gradients.
    """
    if not is_distributed():
        return mean
    sums = torch.cat([mean.detach().reshape(-1) * count, mean.new_full((1,), count)])
    dist.all_reduce(sums)
    joint = (sums[:-1] / sums[-1].clamp(min=1)).view(mean.shape)
    return joint + (mean - mean.detach())


def from_first_rank(tensor: Tensor) -> Tensor:
    """Return the first rank's tensor on every rank; shapes must agree."""
    if is_distributed():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


def from_previous_rank(tensor: Tensor) -> Tensor:
    """Return the tensor of the rank before, detached; the first rank's comes from the last. Shapes must agree."""
    return _from_neighbour(tensor, -1)


def from_next_rank(tensor: Tensor) -> Tensor:
    """Return the tensor of the next rank, detached; the last rank's comes from the first. Shapes must agree."""
    return _from_neighbour(tensor, 1)


def _from_neighbour(tensor: Tensor, distance: int) -> Tensor:
    tensor = tensor.detach().contiguous()
    if not is_distributed():
        return tensor
    received, rank, ranks = torch.empty_like(tensor), dist.get_rank(), dist.get_world_size()
    sending = dist.P2POp(dist.isend, tensor, (rank - distance) % ranks)
    receiving = dist.P2POp(dist.irecv, received, (rank + distance) % ranks)
    for work in dist.batch_isend_irecv([sending, receiving]):
        work.wait()
    return received


def any_rank(flag: Tensor) -> Tensor:
    """Return whether `flag`, () bool, is true on one rank at least: () bool, which is not read."""
    if not is_distributed():
        return flag
    flags = flag.to(torch.int32)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return flags > 0


def ranks_agree(tensors: Sequence[Tensor]) -> bool:
    """Return whether the tensors are the same on all ranks, bit for bit, by two checksums of each; waits for a GPU."""
    if not is_distributed() or not tensors:
        return True
    sums = torch.stack([_checksums(tensor) for tensor in tensors]).flatten()
    extremes = torch.cat([sums, -sums])  # a maximum, and minus a minimum
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    return bool((extremes[: len(sums)] == -extremes[len(sums) :]).all())


def _checksums(tensor: Tensor) -> Tensor:
    """Return a sum of the tensor's bytes, and one in which a byte counts by its place: (2,) int64."""
    numbers = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    sums = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    for start in range(0, len(numbers), _CHECKED_AT_ONCE):
        some = numbers[start : start + _CHECKED_AT_ONCE].to(torch.int64)
        places = torch.arange(start, start + len(some), device=tensor.device) % _PRIME + 1
        sums += torch.stack([some.sum(), (some * places).sum()])
    return sums


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
    rank, lengths = dist.get_rank(), _sizes(rows)
    return sum(lengths), sum(lengths[:rank])


def _sizes(rows: Tensor) -> list[int]:
    """Count the rows (N, ...) of each rank."""
    sizes = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    sizes[dist.get_rank()] = len(rows)
    dist.all_reduce(sizes)
    lengths: list[int] = sizes.tolist()
    return lengths


def draw_for_rows(rows: Tensor, draw: Callable[[int], Tensor], row_bytes: int = 0) -> Tensor:
    """Draw random numbers for the joint batch by `draw(number of rows)`, and return those of this rank's rows (N, ...).

    All ranks so use up the same random numbers, those that one process with the joint batch would. Where the joint
    draw of `row_bytes` a row is beyond 1 GiB, the ranks' rows are drawn one rank after the other. On a GPU that gives
    other numbers than one draw, alike on all ranks.
    """
    if not is_distributed():
        return draw(len(rows))
    rank, lengths = dist.get_rank(), _sizes(rows)
    if sum(lengths) * row_bytes <= _DRAW_BYTES:
        return torch.split(draw(sum(lengths)), lengths)[rank]
    own = torch.empty(0)
    for number, length in enumerate(lengths):
        drawn = draw(length)
        own = drawn if number == rank else own
    return own


def joint_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the rows of all ranks, detached, of known `sizes`: (N, ...) -> (sum of sizes, ...)."""
    if not is_distributed():
        return rows.detach()
    table = rows.new_zeros(sum(sizes), *rows.shape[1:])
    torch.split(table, list(sizes))[dist.get_rank()].copy_(rows.detach())
    dist.all_reduce(table)
    return table


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
