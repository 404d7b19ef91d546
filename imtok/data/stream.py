"""The endless stream of training crops, exact to resume.

Order, crop and mirroring of the n-th training image are functions of (seed, n) alone: not of a worker's random
state or a shuffle buffer. So the only thing to save is how many images were seen.
"""

# Axes: N rows of this rank or images of an epoch, S crop.

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from imtok.data.batch import Batch
from imtok.data.collection import ImageCollection
from imtok.data.crops import Cropping
from imtok.data.images import resize_shorter
from imtok.errors import ImageError, SourceError, TrainingError
from imtok.joint_batch import JointBatch
from imtok.parallel import in_order

_AHEAD = 4  # batches made before the trainer takes them
_TOGETHER = 4  # images that a thread decodes in one go


class _Piece(NamedTuple):
    """Some rows of a batch that are to be filled."""

    images: Tensor  # (N, 3, S, S) uint8, the whole batch
    first: int  # row
    numbers: list[int]  # training images, one a row


class TrainingStream:
    """Batches of random crops, each epoch in its own order.

    Pictures are brought to shorter side `size`, then `crop` x `crop` is taken at random. Resized pictures are kept
    up to `cache_bytes`. An unreadable picture is replaced by the next one and named in `unreadable`. `pin` puts
    batches where a GPU can fetch them by itself.
    """

    def __init__(
        self,
        images: ImageCollection,
        *,
        size: int,
        crop: int,
        flip: bool,
        permute_channels: bool = False,
        seed: int,
        joint: JointBatch,
        cache_bytes: int,
        workers: int,
        pin: bool = False,
    ) -> None:
        self.images, self.size = images, size
        self._cropping = Cropping(crop, flip, permute_channels)
        self.seed, self.joint, self.workers, self.pin = seed, joint, workers, pin
        self.unreadable: dict[str, str] = {}
        self.failures: dict[str, str] = {}  # a list of images has no shards
        self.notes: dict[str, str] = {}
        self._cache = _Cache(cache_bytes)
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = Lock()

    def batches(
        self,
        seen: int,
        until: int,
        place: Mapping[str, Any] | None = None,  # noqa: ARG002  (the number of images seen says all)
    ) -> Generator[Batch, None, None]:
        """Yield batches from the `seen`-th training image on, until `until` are seen; `place` says nothing more."""
        pieces = -(-len(self.joint.numbers) // _TOGETHER)  # of a batch
        ahead = max(_AHEAD * pieces, 2 * self.workers)
        # The trainer computes meanwhile, on all cores.
        filled = in_order(self._fill, self._pieces(seen, until), workers=self.workers, ahead=ahead, one_core=False)
        with closing(filled):
            for number, images in enumerate(filled, 1):
                if number % pieces == 0:
                    yield Batch(images)

    def batch(self, start: int) -> Batch:
        """Make this rank's rows of the joint batch that begins with training image `start`: (N, 3, S, S) uint8."""
        return Batch([self._fill(piece) for piece in self._pieces(start, start + 1)][-1])

    def _pieces(self, seen: int, until: int) -> Iterator[_Piece]:
        """Cut batches into pieces of some rows, so that all threads work on the batch that is needed first."""
        numbers, crop = self.joint.numbers, self._cropping.crop
        for start in range(seen, until, self.joint.size):
            images = torch.empty(len(numbers), 3, crop, crop, dtype=torch.uint8, pin_memory=self.pin)
            for first in range(0, len(numbers), _TOGETHER):
                yield _Piece(images, first, [start + number for number in numbers[first : first + _TOGETHER]])

    def _fill(self, piece: _Piece) -> Tensor:
        """Write the crops of a piece to their rows; return the whole batch."""
        # NumPy writes on this thread; an operation of torch would start a team of threads beside the trainer's own.
        rows = piece.images.numpy()[piece.first :]
        for row, number in enumerate(piece.numbers):
            rows[row] = self._sample(number).transpose(2, 0, 1)
        return piece.images

    def _sample(self, number: int) -> np.ndarray:
        """Make the crop of the `number`-th training image: (S, S, 3) uint8."""
        epoch, position = divmod(number, len(self.images))
        picture = self._picture(int(self._order(epoch)[position]))
        random = np.random.default_rng((self.seed, number))
        return self._cropping.draw(picture, random)

    def _picture(self, first: int) -> np.ndarray:
        """Return the `first` picture, or the next readable one after it, at shorter side `size`: (H, W, 3) uint8."""
        for candidate in range(first, first + len(self.images)):
            index = candidate % len(self.images)
            key = self.images.key(index)
            if key in self.unreadable:
                continue
            cached = self._cache.get(index)
            if cached is not None:
                return cached
            try:
                picture = np.asarray(resize_shorter(self.images.picture(index), self.size))
            except (ImageError, SourceError) as error:
                self.unreadable[key] = str(error)
                continue
            self._cache.put(index, picture)
            return picture
        raise TrainingError(f"no training image of {len(self.images)} can be read; `imtok encode` says why")

    def _order(self, epoch: int) -> np.ndarray:
        """Return the order of the images in an epoch: (N,) int32, half the memory of int64 and the same numbers."""
        kind = torch.int32 if len(self.images) < 2**31 else torch.int64
        with self._lock:
            if epoch not in self._orders:
                generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                self._orders[epoch] = torch.randperm(len(self.images), generator=generator, dtype=kind).numpy()
                while len(self._orders) > 3:
                    self._orders.popitem(last=False)
            return self._orders[epoch]


class _Cache:
    """Pictures in memory until the limit is reached; none is dropped, as every epoch needs each once."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._pictures: dict[int, np.ndarray] = {}
        self._lock = Lock()

    def get(self, index: int) -> np.ndarray | None:
        return self._pictures.get(index)

    def put(self, index: int, picture: np.ndarray) -> None:
        with self._lock:
            if index not in self._pictures and self._used + picture.nbytes <= self._limit:
                self._pictures[index] = picture
                self._used += picture.nbytes
