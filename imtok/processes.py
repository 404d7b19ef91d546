"""The processes of one job: which of them this is, what they agree on, and how they end together.

Messages are JSON or bytes in main memory, over a process group of gloo that is used for nothing else. So no message
waits for a GPU, and none comes between the reductions of a step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

from imtok.error_messages import described, is_lost, remade
from imtok.errors import TrainingError
from imtok.joint_batch import range_of
from imtok.launcher import Numbers, launched, launcher_number
from imtok.signals import ended_by_signals
from imtok.voting import Vote

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup, Work

T = TypeVar("T")

_MINUTES = 30  # that a process waits for the others: one of them may write a checkpoint or open a large source
_PIECE = 2**26  # bytes sent at once
_BETWEEN = 0.5  # seconds between two looks into the store
_SHORTEST, _LONGEST = 0.0005, 0.05  # seconds between two looks at a message
_SECONDS = 3.0  # that the words of the first process are waited for
_HINT = "the same command resumes"

_current: list[Processes] = []  # the processes of this job, once they have met
_jobs = 0  # in which the processes have met, so that each has names of its own in the store


class Processes:
    """The processes of a job; one alone by default, for which each method is plain work without a message."""

    def __init__(
        self,
        numbers: Numbers | None = None,
        group: ProcessGroup | None = None,
        store: Store | None = None,
    ) -> None:
        numbers = numbers or Numbers()
        self.rank, self.ranks = numbers.rank, numbers.ranks
        self.local_rank, self.local_ranks = numbers.local_rank, numbers.local_ranks
        self._group = group  # None for one process
        self._stops = 0  # calls of `stop_of_any`
        self._look: Callable[[], object] = lambda: None  # the newest function of `stop_of_any`
        self.store = store  # of texts by name, which all processes can read; None for one process

    @property
    def several(self) -> bool:
        """True where there is more than one process."""
        return self.ranks > 1

    @property
    def first(self) -> bool:
        """True in the process that prints, and that reads and writes what the job keeps."""
        return self.rank == 0

    def block(self, count: int) -> range:
        """Return this process's part of `count` things: consecutive, and as many as others have, give or take one."""
        return range_of(count, self.rank, self.ranks)

    def by_first(self, work: Callable[[], T]) -> T:
        """Let the first process do `work` and give all of them its result, of JSON, or its error.

        An error is raised everywhere, and `reported` in all processes but the first.
        """
        if not self.several:
            return work()
        if not self.first:
            answer: dict[str, T] = json.loads(self.bytes_of_first(None))
            if "error" in answer:
                raise remade(cast("dict[str, str]", answer["error"]), reported=True)
            return answer["result"]
        try:
            result = work()
            self.bytes_of_first(json.dumps({"result": result}).encode())
            return result
        except Exception as error:
            if not is_lost(error):
                self.bytes_of_first(json.dumps({"error": described(error)}).encode())
            raise

    def bytes_of_first(self, data: bytes | None) -> bytes:
        """Return on every process the bytes that the first one gives."""
        if self._group is None:
            assert data is not None
            return data
        import torch
        import torch.distributed as dist

        size = torch.tensor(0 if data is None else len(data))
        self._finish(dist.broadcast(size, 0, group=self._group, async_op=True))
        pieces = []
        for start in range(0, int(size), _PIECE):
            stop = min(start + _PIECE, int(size))
            piece = bytearray(data[start:stop] if data is not None and self.first else stop - start)
            whole = torch.frombuffer(piece, dtype=torch.uint8)
            self._finish(dist.broadcast(whole, 0, group=self._group, async_op=True))
            pieces.append(piece)
        return data if data is not None and self.first else b"".join(pieces)

    def gather(self, value: T) -> list[T]:
        """Return the values of JSON that all processes give, in their order, on every process."""
        if self._group is None:
            return [value]
        return [json.loads(data) for data in self.gather_bytes(json.dumps(value).encode())]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes that all processes give, in their order, on every process."""
        if self._group is None:
            return [data]
        import torch
        import torch.distributed as dist

        lengths = [torch.tensor([0]) for _ in range(self.ranks)]
        self._finish(dist.all_gather(lengths, torch.tensor([len(data)]), group=self._group, async_op=True))
        longest = max(1, *(int(length) for length in lengths))
        mine = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8)
        rows = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.ranks)]
        self._finish(dist.all_gather(rows, mine, group=self._group, async_op=True))
        return [row[: int(length)].numpy().tobytes() for row, length in zip(rows, lengths, strict=True)]

    def _finish(self, message: Work | None) -> None:
        """Wait for a message in Python, so that a signal is handled meanwhile, and a stop reaches the others."""
        assert message is not None
        pause = _SHORTEST
        while not message.is_completed():
            self._look()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        message.wait()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an error of the block in one process in all of them, so that none waits for one that has ended."""
        if not self.several:
            yield
            return
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            if is_lost(error):
                raise
            own = error
        found = self.gather(None if own is None else described(own))
        failed = [(rank, description) for rank, description in enumerate(found) if description is not None]
        if not failed:
            return
        rank, description = failed[0]
        if len(failed) < self.ranks or any(other != description for _, other in failed):
            description = {**description, "text": f"rank {rank}: {description['text']}"}
        raise remade(description, reported=not self.first) from own

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """Let one process of each machine run the block before the others do, as where all need one file fetched."""
        if self.local_rank > 0:
            self.gather(None)
        try:
            yield
        finally:
            if self.local_rank == 0:
                self.gather(None)

    def vote(self) -> Vote:
        """Return a vote on whether any process says yes, of which every process takes part in each round."""
        return Vote(self._group)

    def stop_of_any(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """Return a function that says whether `should_stop` is true in any process, a second later at most.

        It ends waiting for the others, in any thread. The step at which all stop is agreed by `vote`.
        """
        if self.store is None:
            return should_stop
        self._stops += 1
        name, stopped, looked = f"imtok/{_jobs}/stop/{self._stops}", False, 0.0

        def stop_anywhere() -> bool:
            nonlocal stopped, looked
            if not stopped and should_stop():
                stopped = True
                self._publish(name)
            if not stopped and time.monotonic() - looked > _BETWEEN:
                looked = time.monotonic()
                stopped = self._known(name)
            return stopped

        self._look = stop_anywhere
        return stop_anywhere

    def leave(self, text: str) -> None:
        """Report to the others by which error this process ends."""
        self._publish(self._end(self.rank), text)

    def reported_by_first(self, text: str) -> bool:
        """Return whether the first process ends by the same error, so that its line says all; waits 3 s at most."""
        if self.first or self.store is None:
            return False
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            if (first := self._ended_by(0)) is not None:
                return first == text
            time.sleep(0.05)
        return False

    def lost(self) -> TrainingError:
        """Make the error of a process that waits for one that has ended, and name that one where it can be known.

        The others meet it too and say so in the store; whoever says nothing for 2 s has ended.
        """
        self._publish(self._waiting(self.rank))
        until, silent = time.monotonic() + 2, list[int]()
        while time.monotonic() < until:
            ended = {rank: text for rank in range(self.ranks) if (text := self._ended_by(rank)) and _HINT not in text}
            if ended:
                rank = min(ended)
                return TrainingError(f"rank {rank} of this training has ended ({ended[rank]}); {_HINT}")
            silent = [rank for rank in range(self.ranks) if rank != self.rank and not self._known(self._waiting(rank))]
            if len(silent) < 2:
                break
            time.sleep(0.05)
        who = f"rank {silent[0]}" + (" (or another process)" if len(silent) > 1 else "") if silent else "a process"
        return TrainingError(
            f"{who} of this training has ended without a word, as by a kill or a lost machine; {_HINT}"
        )

    def _ended_by(self, rank: int) -> str | None:
        """Return the text with which a process has ended, None where it has not or nobody knows."""
        if self.store is None or not self._known(self._end(rank)):
            return None
        with suppress(Exception):
            return str(self.store.get(self._end(rank)).decode())
        return None

    def _publish(self, name: str, text: str = "") -> None:
        """Put a text into the store."""
        with suppress(Exception):  # the store may have ended, and then nobody looks
            if self.store is not None:
                self.store.set(name, text)

    def _known(self, name: str) -> bool:
        """Return whether the store has a text of this name; False where the store has ended."""
        with suppress(Exception):
            return self.store is not None and bool(self.store.check([name]))
        return False

    def _end(self, rank: int) -> str:
        return f"imtok/{_jobs}/end/{rank}"

    def _waiting(self, rank: int) -> str:
        return f"imtok/{_jobs}/waiting/{rank}"


@contextmanager
def joined() -> Iterator[Processes]:
    """Let the processes that a launcher started meet, and part at the end of the block; without a launcher, do nothing.

    Where a process group exists, it is used and left as it is. Raises ConfigError where the environment has only some
    of a launcher's numbers, TrainingError where another process cannot be met or has ended.
    """
    global _jobs
    if _current:
        yield _current[-1]
        return
    _jobs += 1
    with ExitStack() as stack:
        processes = _meet(stack)
        _current.append(processes)
        stack.callback(_current.clear)
        try:
            yield processes
        except Exception as error:
            if not processes.several:
                raise
            found = processes.lost() if is_lost(error) else error
            processes.leave(str(found))
            if found is error:
                raise
            raise found from error


def _meet(stack: ExitStack) -> Processes:
    """Start what processes need to talk, which `stack` ends."""
    numbers = launched()
    if numbers.ranks == 1 and "torch" not in sys.modules:  # nobody can have made a group
        return Processes()
    import torch
    import torch.distributed as dist

    timeout = timedelta(minutes=_MINUTES)
    try:
        if dist.is_available() and dist.is_initialized():
            numbers = _numbers_of_group()
        elif numbers.ranks > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            with ended_by_signals():  # torchrun sends one where another process died before all have met
                dist.init_process_group(backend, timeout=timeout)
            stack.callback(_end_group, None)
        if numbers.ranks == 1:
            return Processes()
        group = cast("ProcessGroup", dist.new_group(backend="gloo", timeout=timeout))
        stack.callback(_end_group, group)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        text = str(error).splitlines()[0]
        raise TrainingError(f"rank {numbers.rank}: cannot meet the other processes at {place} ({text})") from error
    return Processes(numbers, group, dist.distributed_c10d._get_default_store())


def _end_group(group: ProcessGroup | None) -> None:
    """End a group, or all where it is None; one whose processes have gone cannot be ended properly."""
    import torch.distributed as dist

    with suppress(Exception):
        dist.destroy_process_group(group)


def _numbers_of_group() -> Numbers:
    """Return the numbers of a group that the caller made; without a launcher it counts as one machine."""
    import torch.distributed as dist

    rank, ranks = dist.get_rank(), dist.get_world_size()
    return Numbers(rank, ranks, launcher_number("LOCAL_RANK", rank), launcher_number("LOCAL_WORLD_SIZE", ranks))
