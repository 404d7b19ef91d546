"""Breakdowns of a tally: by runs of images, growth, position in the grid, dimension, class, and duplicates."""

# Axes: K codes, Q codebooks, S images kept, P positions of the grid.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from imtok.analysis.neighbours import run_starts
from imtok.analysis.statistics import ClassUse, Dimension, Duplicates, PositionMap, Runs
from imtok.analysis.tally import NEVER, Tally
from imtok.entropy import Counts, entropy_bits, log_spaced, miller_bits
from imtok.quantizers.record import QuantizerRecord
from imtok.tokens.shard import NO_LABEL, Codes

_POINTS = 200  # of the curve of growth
_CLASSES = 100
_OWN, _OWN_TOKENS = 5, 10  # codes listed for a class, and how often each must occur in it
_GROUPS, _KEYS = 5, 5  # of duplicates, and keys listed of each


def runs_of_images(tally: Tally) -> Runs | None:
    """Measure usage by each 256 consecutive images of a unit; None where no unit has so many."""
    used = np.concatenate([*tally.runs, np.empty(0, np.int64)])
    if not len(used):
        return None
    all_codes = tally.codebook_size * tally.num_codebooks
    mean, least, most = int(used.sum()) / len(used), int(used.min()), int(used.max())
    return Runs(runs=len(used), usage=mean / all_codes, least=least / all_codes, most=most / all_codes)


def growth(tally: Tally) -> list[tuple[int, int]]:
    """Return (images seen, codes used by then) at numbers of images spaced in the logarithm."""
    if not tally.images:
        return []
    first = tally.first.min(axis=0)  # (K,)
    first = np.sort(first[first != NEVER])
    return [(int(seen), int(np.searchsorted(first, seen))) for seen in log_spaced(tally.images, _POINTS)]


def position_map(tally: Tally) -> PositionMap | None:
    """Measure entropy and surprisal at each position of the grid; None where there are no images."""
    _, codes, _ = tally.kept_images()
    if not len(codes):
        return None
    height, width = tally.grid
    planes = codes.reshape(len(codes), height * width, tally.num_codebooks)
    limit = math.log2(min(tally.codebook_size, len(codes)))
    entropy, surprisal = np.zeros(height * width), np.zeros(height * width)
    for number, counts in enumerate(tally.counts):
        columns = np.ascontiguousarray(planes[..., number].T)  # (P, S)
        entropy += [min(limit, _entropy_of(column, tally.codebook_size)) for column in columns]
        with np.errstate(divide="ignore"):
            table = math.log2(int(counts.sum())) - np.log2(counts)  # (K,)
        surprisal += [float(table[column].mean()) for column in columns]
    return PositionMap(
        images=len(codes),
        entropy_bits=(entropy / tally.num_codebooks).reshape(height, width).tolist(),
        limit_bits=limit,
        surprisal_bits=(surprisal / tally.num_codebooks).reshape(height, width).tolist(),
    )


def dimensions(counts: Counts, config: QuantizerRecord | None) -> list[Dimension]:
    """Shares of the levels of each dimension, from the counts (Q, K) alone; none for quantizers that have no levels."""
    if config is None:
        return []
    return [
        Dimension(
            codebook=number,
            dimension=dimension,
            shares=(levels / max(1, int(levels.sum()))).tolist(),
            entropy_bits=entropy_bits(levels),
            max_bits=math.log2(len(levels)),
        )
        for number, row in enumerate(counts)
        for dimension, levels in enumerate(config.base.counts_by_dimension(row))
    ]


def class_use(tally: Tally, names: Sequence[str]) -> list[ClassUse]:
    """Measure the codes of each class, all codebooks together, the class with most images first."""
    _, codes, labels = tally.kept_images()
    found, images = np.unique(labels[labels != NO_LABEL], return_counts=True)
    if len(found) < 2:  # a single class cannot be compared
        return []
    everything = _counts_of(codes[labels != NO_LABEL], tally.codebook_size)
    order = np.argsort(-images, kind="stable")[:_CLASSES]
    return [
        _one_class(int(found[each]), int(images[each]), codes[labels == found[each]], everything, names)
        for each in order
    ]


def _one_class(label: int, images: int, codes: Codes, everything: Counts, names: Sequence[str]) -> ClassUse:
    counts = _counts_of(codes, len(everything))
    seen = counts > 0
    total, used = int(counts.sum()), int(np.count_nonzero(seen))
    lift = counts[seen] / total * int(everything.sum()) / everything[seen]  # share here / share in all
    # The tokens of the class are part of all tokens. What chance adds to both is no bias.
    bias = miller_bits(used, total) - miller_bits(float(lift.sum()), int(everything.sum()))
    divergence = float((counts[seen] / total * np.log2(lift)).sum()) - bias
    often = np.flatnonzero(seen)[counts[seen] >= _OWN_TOKENS]
    lifts = lift[counts[seen] >= _OWN_TOKENS]
    own = np.argsort(-lifts, kind="stable")[:_OWN]
    return ClassUse(
        label=label,
        name=names[label] if 0 <= label < len(names) else str(label),
        images=images,
        tokens=total,
        used=used,
        perplexity=2.0 ** entropy_bits(counts),
        divergence_bits=max(0.0, divergence),
        own=[(int(often[each]), float(lifts[each])) for each in own],
    )


def duplicates(tally: Tally, key_of: Callable[[int], str]) -> Duplicates:
    """Find images with the codes of an earlier image; `key_of` gives the key of an image by its number."""
    hashes = np.concatenate([*(each[0] for each in tally.hashes), np.empty(0, np.uint64)])
    numbers = np.concatenate([*(each[1] for each in tally.hashes), np.empty(0, np.int64)])
    ascending = np.sort(hashes)
    several = np.isin(hashes, ascending[1:][ascending[1:] == ascending[:-1]])
    compared, hashes, numbers = len(hashes), hashes[several], numbers[several]
    order = np.lexsort((numbers, hashes))  # only of the few that occur more than once
    hashes, numbers = hashes[order], numbers[order]
    starts = run_starts(hashes)
    sizes = np.diff(starts, append=len(hashes))
    largest = sorted(range(len(sizes)), key=lambda group: (-int(sizes[group]), int(numbers[starts[group]])))
    return Duplicates(
        images=compared,
        duplicates=len(hashes) - len(starts),
        groups=len(largest),
        largest=[
            [key_of(int(number)) for number in numbers[starts[group] :][: min(_KEYS, int(sizes[group]))]]
            for group in largest[:_GROUPS]
        ],
    )


def _counts_of(codes: Codes, codebook_size: int) -> Counts:
    return np.bincount(codes.reshape(-1), minlength=codebook_size)


def _entropy_of(column: npt.NDArray[np.unsignedinteger], codebook_size: int) -> float:
    """Return the corrected entropy of (S,) codes, without a table of K counts, which would be nearly empty."""
    ascending = np.sort(column)
    counts = np.diff(run_starts(ascending), append=len(ascending))
    return min(math.log2(codebook_size), entropy_bits(counts) + miller_bits(len(counts), len(column)))
