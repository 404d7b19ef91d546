"""The tokenizer's encoder on batches of one size, as the threads of a job call it.

A batch is always of the same size for the network: rows without an image stay black. Several crops of its images go
through the network one after the other. So the codes of a first crop are those of a job without augmentation.
"""

# Axes: A crops of an image, B batch, S side of the square, h x w latent grid, Q codebooks.

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from imtok.devices import Precision, autocast
from imtok.errors import ConfigError, TokenizerError
from imtok.tokenizer import Tokenizer
from imtok.tokens.shard import Codes, smallest_dtype

# torch's words for it, on a GPU and on a CPU.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")


class EncoderForward:
    """Batches of pixels to codes; called from many threads at once."""

    def __init__(self, tokenizer: Tokenizer, *, device: torch.device, precision: Precision, batch_size: int) -> None:
        self.batch_size = batch_size
        self._tokenizer, self._device, self._precision = tokenizer, device, precision
        on_gpu = device.type == "cuda"
        # Two forwards at once would only double the memory of a GPU; on a CPU each thread has its own core.
        self._turn = threading.Lock() if on_gpu else nullcontext()
        self._pinned = on_gpu
        self.dtype = smallest_dtype(tokenizer.num_codes)

    def black(self, crops: int, side: int) -> Tensor:
        """Return a batch of black images to be filled: (A, B, 3, S, S) uint8."""
        return torch.zeros(crops, self.batch_size, 3, side, side, dtype=torch.uint8, pin_memory=self._pinned)

    def __call__(self, pixels: Tensor, first: str) -> Codes:
        """Encode (A, B, 3, S, S) uint8 to (B, A, h, w) or (B, A, h, w, Q) codes in the smallest type.

        `first` names the first image in errors. Raises TokenizerError where latents are NaN, ConfigError where the
        batch does not fit in memory.
        """
        try:
            return np.stack([self._codes(batch) for batch in pixels], axis=1)
        except ValueError as error:  # from the quantizer: NaN in the latents
            raise TokenizerError(f"the tokenizer cannot encode {first} and what follows it: {error}") from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in _OUT_OF_MEMORY):
                raise ConfigError(
                    f"{self.batch_size} images do not fit in memory; take a smaller --batch-size"
                ) from error
            raise

    def _codes(self, pixels: Tensor) -> Codes:
        on_device = pixels.to(self._device, non_blocking=True)
        with self._turn, autocast(self._device, self._precision):
            codes = self._tokenizer.encode(on_device)
        return codes.cpu().numpy().astype(self.dtype)
