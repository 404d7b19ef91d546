"""One batch from bytes to codes, as a thread does it from beginning to end.

A batch is a fixed run of positions in one unit, and always of the same size for the network: rows without an image
stay black. So the codes of an image depend on its position in its unit and on nothing else.
"""

# Axes: B batch, S side of the square, n images read of a batch, h x w latent grid, Q codebooks.

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imtok.data.images import decode_salvaging, fit_image
from imtok.devices import autocast
from imtok.encoding.inputs import OpenUnit
from imtok.encoding.settings import Settings
from imtok.errors import ConfigError, ImageError, SourceError, TokenizerError
from imtok.tokenizer import Tokenizer
from imtok.tokens.shard import NO_LABEL, Codes, smallest_dtype

# torch's words for it, on a GPU and on a CPU.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")


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
    codes: Codes | None = None  # (n, h, w) or (n, h, w, Q); None where no image could be read
    index: list[int] = field(default_factory=list)  # n positions in the unit
    sizes: list[tuple[int, int]] = field(default_factory=list)  # n heights and widths
    labels: list[int] = field(default_factory=list)  # n
    cut: float = 0.0  # sum over the n images of the share of area that the crop left out
    skips: list[tuple[int, str]] = field(default_factory=list)  # positions and reasons
    salvaged: list[str] = field(default_factory=list)  # keys of truncated pictures among the n
    failure: str | None = None  # why the whole unit fails


class BatchEncoder:
    """Batches to codes; called from many threads at once."""

    def __init__(self, tokenizer: Tokenizer, settings: Settings) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        on_gpu = settings.device.type == "cuda"
        # Two forwards at once would only double the memory of a GPU; on a CPU each thread has its own core.
        self._turn = threading.Lock() if on_gpu else nullcontext()
        self._pinned = on_gpu
        self._dtype = smallest_dtype(tokenizer.num_codes)

    def __call__(self, batch: Batch) -> Encoded:
        """Read, decode, fit and encode a batch; raises only where the whole job cannot continue."""
        side, count = self._settings.size, self._settings.batch_size
        pixels = torch.zeros(count, 3, side, side, dtype=torch.uint8, pin_memory=self._pinned)
        done = Encoded(batch)
        try:
            for row, position in enumerate(batch.positions):
                self._read(batch.unit, position, done, pixels[row])
        except SourceError as error:
            return Encoded(batch, failure=str(error))
        if done.index:
            rows = [position - batch.positions.start for position in done.index]
            done.codes = self._codes(pixels, batch)[rows]
        return done

    def _read(self, unit: OpenUnit, position: int, done: Encoded, pixels: Tensor) -> None:
        """Fill `pixels` (3, S, S) and record the image in `done`, or the reason to skip it."""
        try:
            decoded = decode_salvaging(unit.read(position), self._settings.reading)
        except ImageError as error:
            done.skips.append((position, error.reason))
            return
        fitted = fit_image(decoded.picture, self._settings.size, self._settings.fit)
        pixels.copy_(fitted.pixels)
        label = unit.label(position)
        done.index.append(position)
        done.sizes.append(fitted.original)
        done.labels.append(NO_LABEL if label is None else label)
        done.cut += fitted.cut
        if decoded.problem is not None:
            done.salvaged.append(unit.keys[position])

    def _codes(self, pixels: Tensor, batch: Batch) -> Codes:
        """Encode (B, 3, S, S) uint8 to (B, h, w) or (B, h, w, Q) codes in the smallest type."""
        try:
            on_device = pixels.to(self._settings.device, non_blocking=True)
            with self._turn, autocast(self._settings.device, self._settings.precision):
                codes = self._tokenizer.encode(on_device)
            return codes.cpu().numpy().astype(self._dtype)
        except ValueError as error:  # from the quantizer: NaN in the latents
            first = batch.unit.keys[batch.positions.start]
            raise TokenizerError(f"the tokenizer cannot encode {first} and what follows it: {error}") from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise ConfigError(f"{len(pixels)} images do not fit in memory; take a smaller --batch-size") from error
            raise
