"""Bits that the codes of images take, raw and entropy-coded, from the counts of the codes."""

# Axes: Q codebooks, K codes.

from __future__ import annotations

import math

from pydantic import Field

from imtok.entropy import Counts, coded_bits
from imtok.records import Record


class Rate(Record):
    """Bits of the codes of an image."""

    bits_per_image: float = Field(description="h w Q log2 K")
    bits_per_pixel: float = Field(description="bits per image / pixels of the square")
    coded_bits_per_image: float = Field(
        description="bits of an adaptive coder without context, learning included, or log2 K a code where that is less "
        "(Krichevsky & Trofimov, 1981)"
    )
    coded_bits_per_pixel: float = Field(description="coded bits per image / pixels of the square")


def rate_of(counts: Counts, images: int, size: int) -> Rate:
    """Return the rate of the codes of `images` squares of side `size`, counted in (Q, K); there must be an image.

    Each codebook has a coder of its own. The coder learns the frequencies from the codes that it has coded, so a few
    images cost more bits each than many.
    """
    tokens, codes = int(counts.sum()), counts.shape[1]
    raw = tokens * math.log2(codes)
    coded = min(raw, sum(coded_bits(row) for row in counts))
    per_image, coded_per_image, pixels = raw / images, coded / images, size**2
    return Rate(
        bits_per_image=per_image,
        bits_per_pixel=per_image / pixels,
        coded_bits_per_image=coded_per_image,
        coded_bits_per_pixel=coded_per_image / pixels,
    )
