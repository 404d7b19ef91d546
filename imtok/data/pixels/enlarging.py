"""Pictures that are smaller than the square they are brought to: how many, and by how much they are enlarged."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from imtok.data.collection import ImageCollection
from imtok.data.images import Fit, image_size
from imtok.errors import ImageError, SourceError

_SAMPLED = 200  # images of a collection that are looked at


@dataclass
class Enlargement:
    """Counts of pictures brought to squares of `size` pixels."""

    size: int
    fit: Fit = "crop"
    images: int = 0  # all
    enlarged: int = 0
    factors: float = 0.0  # summed over the enlarged ones

    def add(self, height: int, width: int) -> None:
        """Count one picture by its original height and width."""
        side = min(height, width) if self.fit == "crop" else max(height, width)
        self.images += 1
        if side < self.size:
            self.enlarged += 1
            self.factors += self.size / side

    @property
    def mean_factor(self) -> float | None:
        """The mean factor by which the sides of the enlarged pictures grow; None where there is none."""
        return self.factors / self.enlarged if self.enlarged else None


def enlargement(images: ImageCollection, size: int) -> Enlargement:
    """Look at the headers of some images, evenly spaced, and count those whose shorter side is below `size`."""
    sampled, found = images.subsample(_SAMPLED), Enlargement(size)
    for index in range(len(sampled)):
        with suppress(ImageError, SourceError):
            found.add(*image_size(sampled.read(index)))
    return found


def enlarging_note(enlarged: int, images: int, mean_factor: float, size: int) -> str:
    """Say in a sentence how many of `images` pictures are enlarged to `size` pixels, and by how much."""
    which = "the picture is" if images == 1 else f"{enlarged:,} of {images:,} pictures are"
    mean = f"{mean_factor:.1f} times" + (" on average" if enlarged > 1 else "")
    return f"{which} smaller than {size} px and enlarged {mean}"
