"""The batches that a trainer takes from a token set: shuffled, shared by ranks and workers, and exact to resume."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np

from imtok.errors import TokensError
from imtok.joint_batch import JointBatch
from imtok.permutation import Permutation


class TokenBatchSampler:
    """Lists of image numbers, for the `batch_sampler` of torch's DataLoader over a `TokenDataset`; it never ends.

    The n-th training image of all ranks is a function of (seed, n): each epoch is a permutation of the whole set, over
    all its shards. Rank `rank` of `ranks` takes a block of consecutive rows of every joint batch of `batch_size`
    images, so that any number of ranks sees the same joint batches, and any number of workers the same order. `seen`
    is the number of training images that all ranks have had, batches times `batch_size`: the only thing to save, and
    where a resumed run goes on.
    """

    def __init__(
        self, tokens: Sized, batch_size: int, *, seed: int = 0, seen: int = 0, rank: int = 0, ranks: int = 1
    ) -> None:
        if not len(tokens):
            raise TokensError("a token set without images gives no batches; encode some first")
        if seen < 0 or not 0 <= rank < ranks:
            raise TokensError(f"seen {seen}, rank {rank} of {ranks}: expected seen >= 0 and 0 <= rank < ranks")
        self.images, self.seed, self.seen = len(tokens), seed, seen
        self._joint = JointBatch(batch_size, rank=rank, ranks=ranks)

    def __iter__(self) -> Iterator[list[int]]:
        rows = np.array(self._joint.numbers, np.int64)
        seen = self.seen
        while True:
            yield self.numbers(seen + rows).tolist()
            seen += self._joint.size

    def numbers(self, training: np.ndarray) -> np.ndarray:
        """Return the images that training images (n,) int64, counted from the first of the first epoch, are."""
        epochs, positions = np.divmod(training, self.images)
        found = np.empty_like(training)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            found[rows] = Permutation(self.images, self.seed, int(epoch))(positions[rows])
        return found
