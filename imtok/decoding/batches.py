"""One batch from codes to image files, as a thread does it from beginning to end.

Batches are fixed runs of a unit and always of one size for the network, so an image's bytes do not depend on what
else is decoded in the same call.
"""

# Axes: B batch, n images of a batch, h x w latent grid, Q codebooks, S side of the square.

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imtok.data.images import padded_content, to_picture
from imtok.decoding.names import image_name, tar_folders
from imtok.devices import Precision, autocast
from imtok.errors import TokenizerError, TokensError
from imtok.tokenizer import Tokenizer, to_uint8
from imtok.tokens.dataset import TokenDataset
from imtok.tokens.folder import TokensInfo, shard_path
from imtok.tokens.plan import read_plans
from imtok.tokens.shard import Codes
from imtok.tokens.store import StoredFile

Format = Literal["png", "jpg", "webp"]

# PNG at level 1 takes less than half the time of Pillow's default, for 5 % more bytes.
FORMATS: dict[Format, dict[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 1},
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 95},
}


@dataclass(frozen=True)
class CodeBatch:
    """A run of images of one unit."""

    origin: StoredFile  # the shard
    names: list[str]  # n files to write
    codes: Codes  # (n, h, w) or (n, h, w, Q)
    sizes: npt.NDArray[np.int32]  # (n, 2) original height and width


def code_batches(dataset: TokenDataset, batch_size: int, suffix: str, limit: int, crop: int = 0) -> Iterator[CodeBatch]:
    """Yield one crop of the first `limit` images of a data set, in order.

    Raises TokensError on keys that are not to be trusted.
    """
    folders = _tar_folders(dataset)
    for shard in dataset.shards():
        folder, origin = folders.get(shard.header.unit, ""), dataset.store.file(shard_path(shard.header.unit))
        for start in range(0, min(len(shard), limit), batch_size):
            stop = min(start + batch_size, len(shard), limit)
            keys = [shard.keys[row] for row in range(start, stop)]
            names = [folder + image_name(key, suffix) for key in keys]
            yield CodeBatch(origin, names, shard.all_codes[start:stop, crop], shard.original_size[start:stop])
        limit -= min(len(shard), limit)
        if limit == 0:
            return


class BatchDecoder:
    """Batches of codes to image files; called from many threads at once."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        info: TokensInfo,
        *,
        device: torch.device,
        precision: Precision,
        batch_size: int,
        file_format: Format,
    ) -> None:
        self.batch_size = batch_size
        self._tokenizer, self._info = tokenizer, info
        self._device, self._precision = device, precision
        self._save = FORMATS[file_format]
        # As in encoding: a GPU takes one batch at a time, a CPU one on each core.
        self._turn = threading.Lock() if device.type == "cuda" else nullcontext()

    def __call__(self, batch: CodeBatch) -> list[tuple[str, bytes]]:
        """Decode a batch; return the names and contents of its files."""
        try:
            pixels = self._pixels(batch.codes)
        except TokenizerError as error:
            raise TokensError(f"{batch.origin}: {error}") from error
        return [
            (name, self._file(image, *size)) for name, image, size in zip(batch.names, pixels, batch.sizes, strict=True)
        ]

    def _pixels(self, codes: Codes) -> Tensor:
        """Codes (n, h, w) or (n, h, w, Q) -> (n, 3, S, S) uint8."""
        whole = torch.zeros(self.batch_size, *codes.shape[1:], dtype=torch.int64)
        whole[: len(codes)] = torch.from_numpy(codes.astype(np.int64))
        with self._turn, autocast(self._device, self._precision):
            pixels = to_uint8(self._tokenizer.decode(whole.to(self._device)))
        return pixels[: len(codes)].cpu()

    def _file(self, pixels: Tensor, height: int, width: int) -> bytes:
        if self._info.fit == "pad":
            top, left, inner_height, inner_width = padded_content(int(height), int(width), self._info.size)
            pixels = pixels[:, top : top + inner_height, left : left + inner_width]
        file = io.BytesIO()
        to_picture(pixels).save(file, **self._save)
        return file.getvalue()


def _tar_folders(dataset: TokenDataset) -> dict[int, str]:
    """Return the folder, with its slash, for the images of each unit that is a tar."""
    info = dataset.info
    taken: set[str] = set()
    tars: dict[int, str] = {}  # by unit
    for entry in read_plans(dataset.store, len(info.extensions)) if info.all_tars else ():
        if entry.tar is not None:
            tars[entry.unit] = entry.tar
        elif entry.key is not None and "/" in entry.key:
            taken.add(entry.key.split("/", 1)[0])
    if len(tars) != info.all_tars:
        raise TokensError(
            f"{dataset.store.file('plan')}: lists {len(tars)} tars, expected {info.all_tars}; copy the folder again"
        )
    return {unit: f"{folder}/" for unit, folder in zip(tars, tar_folders(tars.values(), taken), strict=True)}
