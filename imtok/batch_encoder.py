"""The encoder for pipelines of others: batches of image files or arrays to codes, in any process that unpickles it.

It holds a name and options until its first batch. Then it loads the tokenizer, so Ray Data, DataLoader workers and
process pools send it cheaply. It computes as `imtok encode` does: images are fitted to the square, batches have one
size for the network, and on a CPU one thread computes each. So its codes are those of `imtok encode`.
"""

# Axes: n images, H x W picture, S side of the square, h x w latent grid, Q codebooks.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imtok.data.images import Fit, decode_image, fit_image
from imtok.data.reading import MAX_PIXELS, Reading
from imtok.devices import BATCH_SIZE, Precision, deterministic, resolve_device
from imtok.encoding.forward import EncoderForward
from imtok.encoding.settings import check_size, check_values
from imtok.errors import ConfigError, ImageError, TokenizerError
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, load
from imtok.tokens.shard import Codes

_COLUMNS = ("bytes", "image")  # with the images, the first that is there


@dataclass(frozen=True)
class _Loaded:
    """What the first batch brings into memory."""

    forward: EncoderForward
    size: int  # S
    grid: tuple[int, ...]  # (h, w) or (h, w, Q)


class BatchEncoder:
    """A picklable function from a batch of images to codes, for instance in `map_batches` of Ray Data.

    `tokenizer` is what `imtok.load` takes, or a Tokenizer. A folder has to be there in every process. Options have
    the meaning and the defaults that they have in `imtok encode`; `workers` are threads. `column` names the images
    among the columns of a batch, by default `bytes` or else `image`.

    Raises ConfigError on options that cannot be met, and TokenizerError on a tokenizer that cannot be loaded: the
    latter with the first batch.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | str | Path,
        *,
        size: int | None = None,
        fit: Fit = "crop",
        device: str = "auto",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        workers: int = 1,
        max_pixels: int = MAX_PIXELS,
        column: str | None = None,
    ) -> None:
        check_values(fit, precision, 1 if batch_size is None else batch_size, 1)
        if workers < 1:
            raise ConfigError(f"workers {workers}: expected 1 or more")
        if isinstance(tokenizer, str | Path) and Path(tokenizer).exists():
            tokenizer = Path(tokenizer).resolve()  # a worker may run in another folder
        self._tokenizer, self._size, self._fit = tokenizer, size, fit
        self._device, self._precision, self._batch_size = device, precision, batch_size
        self._workers, self._reading, self._column = workers, Reading(max_pixels=max_pixels), column
        self._loaded: _Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __call__(self, batch: Sequence[Any] | npt.NDArray[Any] | Mapping[str, Any]) -> dict[str, Any]:
        """Encode a batch of any size.

        `batch` is a list of image files as bytes or of uint8 arrays (H, W, 3), an array (n, H, W, 3), or a mapping of
        columns with such a list. An image may also be a mapping with `bytes`, as data sets of the Hub have it.

        Returns `codes`, (n, h, w) or (n, h, w, Q) in the smallest unsigned type, and `error`, an object array of n
        strings: the reason why an image could not be read, empty where it could. Codes of unreadable images are 0.
        The other columns of a mapping are returned as they came.

        Raises TokenizerError where a value is no image at all, such as a float array.
        """
        others, images = self._split(batch)
        loaded = self._loaded = self._loaded or self._load()
        step = loaded.forward.batch_size
        chunks = [range(start, min(start + step, len(images))) for start in range(0, len(images), step)]
        errors = np.full(len(images), "", dtype=object)

        def encode(rows: range) -> Codes:
            return self._encode(loaded, images, rows, errors)

        results = in_order(encode, chunks, workers=self._workers, ahead=2 * self._workers)
        with deterministic(resolve_device(self._device), self._precision), closing(results):
            none = np.zeros((0, *loaded.grid), loaded.forward.dtype)
            codes = np.concatenate([none, *results])
        return {**others, "codes": codes, "error": errors}

    def _split(self, batch: Any) -> tuple[dict[str, Any], Sequence[Any]]:
        """Return the columns that stay as they are, and the images."""
        if not isinstance(batch, Mapping):
            return {}, batch
        column = self._column or next((name for name in _COLUMNS if name in batch), "bytes or image")
        if column not in batch:
            raise TokenizerError(f"batch with the columns {', '.join(batch)}: expected {column}; name it by `column`")
        others = {name: values for name, values in batch.items() if name != column}
        if taken := {"codes", "error"} & set(others):
            raise TokenizerError(f"batch has a column {min(taken)} already; rename it")
        return others, batch[column]

    def _load(self) -> _Loaded:
        tokenizer = self._tokenizer if isinstance(self._tokenizer, Tokenizer) else load(self._tokenizer)
        size = self._size or tokenizer.config.size
        check_size(size, tokenizer.config.network)
        device = resolve_device(self._device)
        forward = EncoderForward(
            tokenizer.to(device),
            device=device,
            precision=self._precision,
            batch_size=self._batch_size or BATCH_SIZE[device.type],
        )
        books = () if tokenizer.num_codebooks == 1 else (tokenizer.num_codebooks,)
        return _Loaded(forward, size, (*tokenizer.config.network.grid(size, size), *books))

    def _encode(self, loaded: _Loaded, images: Sequence[Any], rows: range, errors: npt.NDArray[np.object_]) -> Codes:
        """Encode the images of `rows`; record in `errors` those that cannot be read."""
        pixels = loaded.forward.black(1, loaded.size)
        for place, row in enumerate(rows):
            try:
                picture = self._picture(images[row], row)
                pixels[0, place].copy_(fit_image(picture, loaded.size, self._fit).pixels)
            except ImageError as error:
                errors[row] = error.reason
        codes = loaded.forward(pixels, first=f"row {rows.start}")[: len(rows), 0]
        codes[[bool(errors[row]) for row in rows]] = 0
        return codes

    def _picture(self, image: Any, row: int) -> Image.Image:
        """Return an image of a batch as RGB picture; raises ImageError where it cannot be read."""
        if isinstance(image, Mapping):
            image = image.get("bytes")
        if image is None:
            raise ImageError("no image", f"row {row} is empty")
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(bytes(image), self._reading)
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
            raise TokenizerError(
                f"row {row} is {array.dtype}{list(array.shape)}, expected the bytes of a file or uint8 (H, W, 3)"
            )
        return Image.fromarray(np.ascontiguousarray(array))
