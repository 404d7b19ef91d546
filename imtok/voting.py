"""Votes of several processes, such as whether to stop: any yes counts, and nobody waits for the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup, Work


class Vote:
    """Rounds in which any process may say yes; each receives the result of a round as it begins the next.

    So nobody waits for a message: the one of the round before came while the process worked.
    """

    def __init__(self, group: ProcessGroup | None) -> None:
        self._group = group
        self._round: tuple[Work, Tensor] | None = None

    def __call__(self, yes: bool) -> bool:
        """Vote, and return whether any process voted yes in the round before; alone, in this one."""
        if self._group is None:
            return yes
        import torch
        import torch.distributed as dist

        before = self._result()
        ballot = torch.tensor([int(yes)])
        work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._round = work, ballot
        return before

    def close(self) -> bool:
        """Return the result of the last round; call it on all processes."""
        return self._result()

    def _result(self) -> bool:
        if self._round is None:
            return False
        work, ballot = self._round
        self._round = None
        work.wait()
        return bool(ballot.item())
