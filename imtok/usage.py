"""Statistics of how a codebook is used, from code counts alone."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from imtok.entropy import (
    Counts,
    corrected_entropy_bits,
    entropy_bits,
    expected_used,
    gini,
    log_spaced,
    zipf_slope,
)
from imtok.records import Record

_RARE = 0.01  # of the even share: a code below it is nearly dead
_RANKS = 200  # points of the rank-frequency curve


class Use(Record):
    """How the codes of one codebook are used; or those of all, code k of one counted with code k of the others."""

    tokens: int = Field(description="codes counted, those of every codebook")
    used: int = Field(description="codes that occur at least once")
    usage: float = Field(
        description="used / codebook size, in [0, 1], over the whole set; papers count it so or by batches of images "
        "(see Zhu et al., 2024)"
    )

    dead: int = Field(description="codes that never occur")
    nearly_dead: int = Field(description="codes that occur, but less than a hundredth of the even share N / K")
    expected_used: float = Field(
        description="codes that would be used by more images: used + f1 (f1 - 1) / (2 (f2 + 1)), at most K, with f1 "
        "codes seen once and f2 twice; a lower bound (Chao, 1984)"
    )
    entropy_bits: float = Field(
        description="-sum p_k log2 p_k, bits a token, at most log2 K (Shannon, 1948); low where tokens are few a code"
    )
    entropy_corrected_bits: float = Field(
        description="entropy + (used - 1) / (2 N ln 2), at most log2 K: the first term of its small-sample bias undone "
        "(Miller, 1955)"
    )
    perplexity: float = Field(
        description="2^entropy: so many equally frequent codes would have the same entropy (Jelinek et al., 1977)"
    )
    normalized_perplexity: float = Field(description="perplexity / K, in [0, 1]")
    gini: float = Field(
        description="inequality of the n_k over all K codes: 0 where all are equal, near 1 where few have all "
        "(Gini, 1912)"
    )
    zipf_slope: float | None = Field(
        description="slope of log n_k over log rank, by least squares at ranks evenly spaced in the logarithm; 0 is "
        "even use, words of a language have about -1 (Zipf, 1949)"
    )


class Span(Record):
    """A group of codes by how often they occur."""

    low: int = Field(description="least occurrences")
    high: int = Field(description="most occurrences")
    codes: int = Field(description="so many codes")


class CodebookUsage(Use, arbitrary_types_allowed=True):
    """Counts of each code over a set of tokens, and the statistics `Use` that follow from them.

    With several codebooks the statistics are of all codes together: code k of one codebook is counted with code k of
    the others. `codebooks` has the statistics of each codebook.
    """

    counts: Counts = Field(exclude=True, repr=False)  # (K,) over all codebooks
    images: int = Field(exclude=True)  # 0 where the counts did not come from whole images
    by_codebook: Counts | None = Field(exclude=True, repr=False)  # (Q, K) where there are Q > 1 codebooks

    def __init__(self, counts: Counts, images: int, by_codebook: Counts | None = None) -> None:
        size, tokens, used, bits = len(counts), int(counts.sum()), int(np.count_nonzero(counts)), entropy_bits(counts)
        perplexity = 2.0**bits if tokens else 0.0
        fields: dict[str, Any] = {
            "counts": counts,
            "images": images,
            "by_codebook": by_codebook,
            "tokens": tokens,
            "used": used,
            "usage": used / size,
            "dead": size - used,
            "nearly_dead": int(np.count_nonzero((counts > 0) & (counts < _RARE * tokens / size))),
            "expected_used": expected_used(counts),
            "entropy_bits": bits,
            "entropy_corrected_bits": corrected_entropy_bits(counts),
            "perplexity": perplexity,
            "normalized_perplexity": perplexity / size,
            "gini": gini(counts),
            "zipf_slope": zipf_slope(counts),
        }
        super().__init__(**fields)

    @classmethod
    def of_codebooks(cls, counts: Counts, images: int) -> CodebookUsage:
        """Build from the counts of each codebook, (Q, K)."""
        return cls(counts.sum(axis=0), images, counts if len(counts) > 1 else None)

    @property
    def codebooks(self) -> tuple[CodebookUsage, ...]:
        """The use of each codebook alone, in the order of their codes."""
        if self.by_codebook is None:
            return (self,)
        return tuple(CodebookUsage(counts, self.images) for counts in self.by_codebook)

    @property
    def codebook_size(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def max_bits(self) -> float:
        """log2 K."""
        return math.log2(self.codebook_size)

    def top(self, count: int) -> list[tuple[int, int]]:
        """Return the most used codes as (code, count), the most used first, ties by code."""
        order = np.argsort(-self.counts, kind="stable")[:count]
        return [(int(code), int(self.counts[code])) for code in order if self.counts[code] > 0]

    def by_frequency(self) -> list[Span]:
        """Count the codes that occur never, once, 2 to 9 times, 10 to 99 times and so on."""
        spans = [Span(low=number, high=number, codes=int(np.count_nonzero(self.counts == number))) for number in (0, 1)]
        low, high, most = 2, 10, int(self.counts.max(initial=0))
        while low <= most:
            number = int(np.count_nonzero((self.counts >= low) & (self.counts < high)))
            spans.append(Span(low=low, high=high - 1, codes=number))
            low, high = high, high * 10
        return spans

    def by_rank(self) -> list[tuple[int, int]]:
        """Return (rank, occurrences) from the most used code down, at ranks evenly spaced in the logarithm."""
        ranked = np.sort(self.counts[self.counts > 0])[::-1]
        if not len(ranked):
            return []
        return [(int(rank), int(ranked[rank - 1])) for rank in log_spaced(len(ranked), _RANKS)]

    def as_use(self) -> Use:
        """Return the statistics without the counts."""
        return Use(**self.model_dump())

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics by their public names, as `imtok eval --json` prints them."""
        return {
            "images": self.images,
            "codebook_size": self.codebook_size,
            "max_bits": self.max_bits,
            **self.model_dump(),
            "codebooks": [each.model_dump() for each in self.codebooks],
        }


def count_codes(arrays: Iterable[npt.NDArray[np.integer[Any]]], codebook_size: int) -> Counts:
    """Count each code over arrays of any shape: (K,) int64; raises ValueError on codes outside [0, K)."""
    return count_by_codebook(arrays, codebook_size, 1).reshape(-1)


def count_by_codebook(arrays: Iterable[npt.NDArray[np.integer[Any]]], codebook_size: int, num_codebooks: int) -> Counts:
    """Count each code of each codebook: (Q, K) int64; raises ValueError on codes outside [0, K).

    For Q > 1 the last axis of the arrays is the codebook.
    """
    counts = np.zeros((num_codebooks, codebook_size), dtype=np.int64)
    for codes in arrays:
        for row, column in zip(counts, codes.reshape(-1, num_codebooks).T, strict=True):
            found = np.bincount(column, minlength=codebook_size)
            if len(found) > codebook_size:
                raise ValueError(f"code {len(found) - 1} is outside [0, {codebook_size})")
            row += found
    return counts
