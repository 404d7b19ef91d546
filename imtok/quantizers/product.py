"""Product quantization (Jégou et al., 2011): the channels are cut in equal parts, each with a quantizer of its own."""

# Axes: B batch, D latent channels, H x W latent grid, K codes, Q codebooks.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imtok.quantizers.base import Quantized, Quantizer
from imtok.quantizers.composite import CompositeQuantizer, join_codes, mean_losses, split_codes
from imtok.quantizers.refusal import refuse_non_finite


class ProductQuantizer(CompositeQuantizer):
    """Head i quantizes the i-th part of the channels: (B, D, H, W) -> codes (B, H, W, Q); (B, H, W) where Q is 1.

    heads
        Quantizers with the same `dim` and `num_codes`, or one quantizer, shared by all parts, with `num_heads`; D is
        the sum of their dims. A shared codebook that learns by moving averages learns once a head: in training each
        head already searches what the one before it has changed.

    With equal parts the mean of a loss over the heads is its mean over all channels, so a commitment weight means the
    same as without a product.
    """

    part_name = "head"
    times_name = "num_heads"

    def __init__(self, heads: Quantizer | Sequence[Quantizer], *, num_heads: int | None = None) -> None:
        super().__init__(heads, num_heads)
        self.dim = sum(head.dim for head in self.uses)

    @property
    def code_dim(self) -> int:
        """The sum over the heads."""
        return sum(head.code_dim for head in self.uses)

    @property
    def residual_ratio(self) -> float:
        """The largest of the heads', so that none is left with more than the next stage can describe."""
        return max(head.residual_ratio for head in self.uses)

    def comparable_latents(self, latents: Tensor) -> Tensor | None:
        """Return those of the heads, one after the other; None where one of the heads has none."""
        chunks = latents.chunk(len(self.uses), dim=1)
        parts = [head.comparable_latents(chunk) for head, chunk in zip(self.uses, chunks, strict=True)]
        found = [part for part in parts if part is not None]
        return torch.cat(found, dim=1) if len(found) == len(parts) else None

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; the heads know nothing of each other."""
        # A head would have learned before a later one refused.
        refuse_non_finite(latents, together=self.refuses_together)
        heads = self.uses
        outs: list[Quantized] = [head(part) for head, part in zip(heads, latents.chunk(len(heads), dim=1), strict=True)]
        values = torch.cat([out.latents for out in outs], dim=1)
        return values, join_codes(out.codes for out in outs), mean_losses([out.losses for out in outs])

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W, Q) as latents (B, code_dim, H, W): the codes of the heads, one after the other."""
        codes = self._check_codes(codes)
        pieces = split_codes(codes, self.uses)
        return torch.cat([head.lookup(piece) for head, piece in zip(self.uses, pieces, strict=True)], dim=1)
