"""One batch from bytes to codes, as a thread does it from beginning to end.

A batch is a fixed run of positions in one unit. So the codes of an image depend on its position in its unit and on
nothing else.
"""

# Axes: A crops of an image, B batch, S side of the square, n images read of a batch, h x w latent grid, Q codebooks.

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from imtok.data.augmentation import augment
from imtok.data.images import Decoded, cut_share, decode_salvaging
from imtok.encoding.forward import EncoderForward
from imtok.encoding.inputs import OpenUnit
from imtok.encoding.settings import Settings
from imtok.errors import ImageError, SourceError
from imtok.tokenizer import Tokenizer
from imtok.tokens.shard import NO_LABEL, Codes


@dataclass(frozen=True)
class Batch:
    """A run of positions in a unit."""

    unit: OpenUnit
    positions: range
    last: bool  # of its unit


@dataclass
class Encoded:
    """The codes of a batch, and the inputs that it skipped."""

    batch: Batch
    codes: Codes | None = None  # (n, A, h, w) or (n, A, h, w, Q); None where no image could be read
    index: list[int] = field(default_factory=list)  # n positions in the unit
    sizes: list[tuple[int, int]] = field(default_factory=list)  # n heights and widths
    crops: list[npt.NDArray[np.int32]] = field(default_factory=list)  # n times (A, 5)
    labels: list[int] = field(default_factory=list)  # n
    cut: float = 0.0  # sum over the n images of the share of area that the crop left out
    skips: list[tuple[int, str]] = field(default_factory=list)  # positions and reasons
    salvaged: list[str] = field(default_factory=list)  # keys of truncated pictures among the n
    failure: str | None = None  # why the whole unit fails


class UnitEncoder:
    """Batches of units to codes; called from many threads at once."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings) -> None:
        self._settings = settings
        self._forward = EncoderForward(
            tokenizer, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
        )

    def __call__(self, batch: Batch) -> Encoded:
        """Read, decode, fit and encode a batch; raises only where the whole job cannot continue."""
        pixels = self._forward.black(self._settings.augmentation.num_crops, self._settings.size)
        done = Encoded(batch)
        try:
            for row, position in enumerate(batch.positions):
                self._read(batch.unit, position, done, pixels[:, row])
        except SourceError as error:
            return Encoded(batch, failure=str(error))
        if done.index:
            rows = [position - batch.positions.start for position in done.index]
            done.codes = self._forward(pixels, first=batch.unit.keys[batch.positions.start])[rows]
        return done

    def _read(self, unit: OpenUnit, position: int, done: Encoded, pixels: Tensor) -> None:
        """Fill `pixels` (A, 3, S, S) and record the image in `done`, or the reason to skip it."""
        settings = self._settings
        try:
            decoded = self._decoded(unit, position)
        except ImageError as error:
            done.skips.append((position, error.reason))
            return
        picture = decoded.picture
        made = augment(picture, settings.size, settings.fit, settings.augmentation, unit.full_name(position))
        pixels.copy_(made.pixels)
        label = unit.label(position)
        done.index.append(position)
        done.sizes.append((picture.height, picture.width))
        done.crops.append(made.crops)
        done.labels.append(NO_LABEL if label is None else label)
        if settings.augmentation.kind != "random-crops":  # which reach outside the central square
            done.cut += cut_share(picture, settings.fit)
        if decoded.problem is not None:
            done.salvaged.append(unit.keys[position])

    def _decoded(self, unit: OpenUnit, position: int) -> Decoded:
        """Read and decode an image; one that is not whole is fetched once more where that may help."""
        data, reading = unit.read(position), self._settings.reading
        with suppress(ImageError):
            decoded = decode_salvaging(data, reading)
            if decoded.problem is None:
                return decoded
        again = unit.read_again(position)
        return decode_salvaging(data if again is None else again, reading)
