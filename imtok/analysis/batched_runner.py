"""A tokenizer applied to many images: in batches, deterministic and in fp32, as in evaluation."""

# Axes: n images, B of a batch, D latent channels, h x w latent grid, Q codebooks, S side of the square.

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imtok.devices import autocast, deterministic, resolve_device
from imtok.errors import LatentsError, TokenizerError
from imtok.modes import evaluating
from imtok.quantizers import Quantized
from imtok.tokenizer import Tokenizer, to_float, to_uint8


class BatchedRunner:
    """Encodes and decodes images and codes that lie on the CPU; `on_images` receives the number done so far.

    The tokenizer moves to the device and stays there; the modes of its modules stay as they are.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        device: str = "auto",
        batch_size: int = 16,
        on_images: Callable[[int], None] | None = None,
    ) -> None:
        self.tokenizer = tokenizer.to(resolve_device(device))
        self.batch_size = batch_size
        self._on_images, self._done = on_images, 0

    def encode(self, images: Tensor) -> Tensor:
        """Encode (n, 3, S, S) uint8 -> (n, h, w) or (n, h, w, Q) int64; raises TokenizerError on latents of NaN."""
        return torch.cat([quantized.codes.cpu() for _, quantized in self.latents(images)])

    def decode(self, codes: Tensor) -> Tensor:
        """Decode (n, h, w) or (n, h, w, Q) int64 -> (n, 3, S, S) uint8."""
        return torch.cat([to_uint8(self.tokenizer.decode(batch)).cpu() for batch in self._batches(codes)])

    @torch.no_grad()
    def latents(self, images: Tensor) -> Iterator[tuple[Tensor, Quantized]]:
        """Encode (n, 3, S, S) uint8; yields the latents (B, D, h, w) of each batch, quantized too, on the device."""
        weights = next(self.tokenizer.parameters())
        for batch in self._batches(images):
            with evaluating(self.tokenizer):
                latents = self.tokenizer.encoder(to_float(batch.to(weights.device)).to(weights.dtype))
                try:
                    quantized = self.tokenizer.quantizer(latents)
                except LatentsError as error:
                    raise TokenizerError(f"the tokenizer cannot encode its pictures: {error}; train it anew") from error
            yield latents, quantized

    def _batches(self, items: Tensor) -> Iterator[Tensor]:
        for batch in torch.split(items, self.batch_size):
            with deterministic(self.tokenizer.device), autocast(self.tokenizer.device, "fp32"):
                yield batch
            self._done += len(batch)
            if self._on_images:
                self._on_images(self._done)
