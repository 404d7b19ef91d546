"""What codes and reconstructions look like: the pictures of a report, beside its figures."""

# Axes: n codes shown, m images shown, f pixels a side of a code's patch, S side of an image.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Visualisations:
    """RGB pictures, uint8, channels last; the codes are those of the first codebook, the most used first."""

    codes: npt.NDArray[np.int64]  # (n,)
    counts: npt.NDArray[np.int64]  # (n,) how often each occurs in the whole set
    swatches: Pixels  # (n, f, f, 3) the middle of what a grid full of that code decodes to
    patches: Pixels  # (n, f, f, 3) the mean pixels where it stands: of the images, or decoded ones where none are given
    patch_counts: npt.NDArray[np.int64]  # (n,) so many places that mean is of; 0: none, and the patch is gray
    decoded: Pixels  # (m, S, S, 3)
    originals: Pixels | None  # (m, S, S, 3) where images were given
    keys: tuple[str, ...]  # (m,)
