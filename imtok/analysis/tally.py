"""A tally: the counts of some units of a token set, to be merged with those of other units in any order."""

# Axes: N images of a unit, h x w grid, P = h w positions, Q codebooks, K codes.

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from imtok.analysis.neighbours import PairTable
from imtok.analysis.sampling import Sampling, chosen, grid_hashes
from imtok.entropy import Counts
from imtok.tokens.shard import NO_LABEL, Codes

RUN = 256  # images of a run
NEVER = np.iinfo(np.int64).max

_BLOCK = 2**19  # tokens counted at once: few enough to stay in the cache, enough to outweigh the call


class CodeOutOfRange(ValueError):
    """A code outside the codebook."""


class Tally:
    """Counts of some units of a token set; without `sampling` of the codes alone."""

    def __init__(
        self, grid: tuple[int, int], codebook_size: int, num_codebooks: int, sampling: Sampling | None
    ) -> None:
        self.grid, self.codebook_size, self.num_codebooks = grid, codebook_size, num_codebooks
        self.sampling = sampling
        self.images = 0
        self.counts = np.zeros((num_codebooks, codebook_size), np.int64)  # (Q, K)
        self.first = np.full((num_codebooks, codebook_size), NEVER)  # (Q, K) the first image with each code
        self.runs: list[Counts] = []  # (R,) codes used by each run of 256 images, summed over codebooks
        # First the right-hand neighbours of each codebook, then the neighbours below.
        self.pairs = [[PairTable(codebook_size) for _ in range(num_codebooks)] for _ in range(2)]
        self.kept: list[tuple[Counts, Codes, Counts]] = []  # image numbers, codes (n, h, w[, Q]), labels
        self.hashes: list[tuple[npt.NDArray[np.uint64], Counts]] = []  # of grids, with their image numbers
        self._unseen = [np.arange(codebook_size, dtype=np.uint32) for _ in range(num_codebooks)]  # by this tally itself
        self._wide = np.empty(0, np.intp)

    def add(self, start: int, codes: Codes, labels: Counts | None) -> None:
        """Count a unit, codes (N, h, w) or (N, h, w, Q), whose first image has number `start` in the set.

        Units come in ascending order. Raises CodeOutOfRange on codes outside [0, K).
        """
        if not len(codes):
            return
        planes = codes.reshape(len(codes), *self.grid, self.num_codebooks)
        used = np.zeros(len(codes) // RUN, np.int64)
        for number in range(self.num_codebooks):
            plane = np.ascontiguousarray(planes[..., number])  # (N, h, w)
            if self.sampling is None:
                self._count_alone(number, plane.reshape(-1))
                continue
            used += self._count(number, start, plane.reshape(len(plane), -1))
            self._count_pairs(number, start, plane, self.sampling)
        self.images += len(codes)
        if self.sampling is not None:
            self.runs.append(used)
            self._keep(start, codes, labels, self.sampling)

    def merge(self, other: Tally) -> None:
        """Add the counts of other units of the same set."""
        self.images += other.images
        self.counts += other.counts
        np.minimum(self.first, other.first, out=self.first)
        self.runs += other.runs
        self.kept += other.kept
        self.hashes += other.hashes
        for mine, theirs in zip(self.pairs, other.pairs, strict=True):
            for table, more in zip(mine, theirs, strict=True):
                table.merge(more)

    def kept_images(self) -> tuple[Counts, Codes, Counts]:
        """Return the images kept for the map and the classes: ascending numbers (S,), codes (S, ...), labels (S,)."""
        if not self.kept:
            return np.empty(0, np.int64), np.empty((0, *self.grid), np.uint8), np.empty(0, np.int64)
        numbers, codes, labels = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        order = np.argsort(numbers)
        return numbers[order], codes[order], labels[order]

    def _count_alone(self, number: int, codes: Codes) -> None:
        for begin in range(0, len(codes), _BLOCK):
            self.counts[number] += self._occurrences(codes[begin : begin + _BLOCK])

    def _count(self, number: int, start: int, rows: Codes) -> Counts:
        """Count codes (N, P) of one codebook, and return how many codes each whole run of 256 images uses."""
        positions = rows.shape[1]
        by_run = self.codebook_size <= 2 * RUN * positions  # for larger K, a look at all K after every run costs most
        step = RUN if by_run else max(1, _BLOCK // positions // RUN) * RUN
        used: list[int] = []
        for begin in range(0, len(rows), step):
            block = rows[begin : begin + step]
            found = self._occurrences(block)
            self.counts[number] += found
            self._note_first(number, start + begin, block, found)
            whole = len(block) // RUN
            if by_run:
                used += [int(np.count_nonzero(found))] * whole
            else:
                used += [_distinct(run) for run in block[: whole * RUN].reshape(whole, RUN * positions)]
        return np.array(used, np.int64)

    def _occurrences(self, block: Codes) -> Counts:
        if block.size > len(self._wide):
            self._wide = np.empty(block.size, np.intp)
        wide = self._wide[: block.size]
        np.copyto(wide, block.reshape(-1))  # the conversion inside bincount would allocate memory each time
        if block.dtype.itemsize > 2:  # bincount would allocate a table as long as the greatest code
            self._check(int(block.max()))
        found = np.bincount(wide, minlength=self.codebook_size)
        self._check(len(found) - 1)
        return found

    def _check(self, greatest: int) -> None:
        if greatest >= self.codebook_size:
            raise CodeOutOfRange(f"code {greatest} is outside [0, {self.codebook_size})")

    def _note_first(self, number: int, start: int, block: Codes, found: Counts) -> None:
        unseen = self._unseen[number]
        is_new = found[unseen] > 0
        if not is_new.any():
            return
        new = unseen[is_new]
        self._unseen[number] = unseen[~is_new]
        table = np.zeros(self.codebook_size, bool)
        table[new] = True
        indices = np.flatnonzero(table[block.reshape(-1)])[::-1]  # backwards: the earliest of several is set last
        self.first[number][block.reshape(-1)[indices]] = start + indices // block.shape[1]

    def _count_pairs(self, number: int, start: int, plane: Codes, sampling: Sampling) -> None:
        offset = -start % sampling.pair_stride
        plane = plane[offset :: sampling.pair_stride]  # (n, h, w)
        if sampling.paired is None:
            self.pairs[0][number].add(plane[:, :, :-1], plane[:, :, 1:])
            self.pairs[1][number].add(plane[:, :-1], plane[:, 1:])
            return
        height, width = self.grid
        flat = plane.reshape(-1)
        indices = np.flatnonzero(np.take(sampling.paired[number], flat, mode="clip"))
        left, above = indices[indices % width < width - 1], indices[indices // width % height < height - 1]
        self.pairs[0][number].add(flat[left], flat[left + 1])
        self.pairs[1][number].add(flat[above], flat[above + width])

    def _keep(self, start: int, codes: Codes, labels: Counts | None, sampling: Sampling) -> None:
        numbers = start + np.arange(len(codes))
        stride = sampling.map_stride
        kept = slice(-start % stride, None, stride)
        if labels is None:
            labels = np.full(len(codes), NO_LABEL)
        if len(numbers[kept]):  # copies, because the file is memory-mapped
            self.kept.append((numbers[kept], codes[kept].copy(), labels[kept].copy()))
        hashes = grid_hashes(codes)
        among = chosen(hashes, sampling.grid_share)
        self.hashes.append((hashes[among], numbers[among]))


def _distinct(values: npt.NDArray[Any]) -> int:
    ascending = np.sort(values, axis=None)
    return int(np.count_nonzero(ascending[1:] != ascending[:-1])) + 1
