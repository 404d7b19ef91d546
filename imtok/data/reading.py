"""The rules by which sources become images, recorded with whatever is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Rules = Literal[1, 2]

RULES: Rules = max(get_args(Rules))
# Above this a header is taken for a decompression bomb: 178 megapixels, Pillow's own hard limit.
MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class Reading:
    """Options that decide which images, keys, labels and pixels a source gives.

    `rules` 1 are those of token folders and runs that record none; an unfinished one is completed by them. `rules` 2
    read links, sparse members and concatenated tars, tell files without a known suffix by their first bytes, name a
    source by the path that was given, convert colour profiles to sRGB, and know more layouts of labels.
    """

    rules: Rules = RULES
    max_pixels: int = MAX_PIXELS  # a picture whose header claims more is skipped
    salvage_images: bool = False  # take what can be read of a truncated picture


DEFAULT_READING = Reading()
