"""Random crops for training: what is drawn of a picture, as a function of its random generator alone."""

# Axes: H x W picture, S crop.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cropping:
    """The side of the crops, and what else is drawn: mirroring, and other orders of the colour channels."""

    crop: int
    flip: bool = True
    permute_channels: bool = False

    def draw(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Draw a crop: (H, W, 3) uint8 -> (S, S, 3) uint8, a view where that suffices."""
        top = int(random.integers(picture.shape[0] - self.crop + 1))
        left = int(random.integers(picture.shape[1] - self.crop + 1))
        crop = picture[top : top + self.crop, left : left + self.crop]
        if self.flip and random.random() < 0.5:
            crop = crop[:, ::-1]
        if self.permute_channels and random.random() < 0.5:
            crop = crop[:, :, random.permutation(3)]
        return crop
