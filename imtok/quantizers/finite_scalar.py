"""Finite scalar quantization (Mentzer et al., 2023): each latent channel is bounded and rounded; no codebook."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imtok.kernels import codes_to_digits, finite_scalar_bound, finite_scalar_codes
from imtok.quantizers.base import Quantizer
from imtok.quantizers.finite_scalar_config import FSQConfig
from imtok.quantizers.refusal import refuse_missing


class FSQ(Quantizer):
    """Rounds dimension i to `levels[i]` values in [-1, 1]; K is the product of the levels.

    Levels below 3 are refused: with L = 2 the published bound is nearly flat and the dimension hardly trains. So are
    levels above 1000, whose outermost values its factor 1 - 1e-3 keeps out of reach.
    """

    levels: tuple[int, ...]

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        checked = FSQConfig.checked(levels=tuple(levels))
        self.levels, self.dim, self.num_codes = checked.levels, checked.dim, checked.num_codes
        self.loss_weights = {}

    @property
    def residual_ratio(self) -> float:
        """1/2: codes have a fixed size, whatever is left to describe."""
        return 0.5

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; there are no losses, the bound alone keeps the latents in range."""
        values, codes = finite_scalar_codes(latents, self.levels)
        refuse_missing(codes, together=self.refuses_together)
        return values, codes, {}

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) as latents (B, D, H, W) in [-1, 1]; levels that are even span [-1, 1 - 2/L]."""
        codes = self._check_codes(codes)
        # Contiguous as `forward` gives them, since a convolution's last bits depend on the memory layout.
        digits = codes_to_digits(codes, self.levels).movedim(-1, 1).contiguous()
        half_widths = digits.new_tensor([level // 2 for level in self.levels]).view(1, -1, 1, 1)
        return (digits - half_widths).to(self.dtype) / half_widths

    def comparable_latents(self, latents: Tensor) -> Tensor:
        """Return latents bounded, before they are rounded: (B, D, H, W) -> the same shape."""
        columns = zip(latents.unbind(dim=1), self.levels, strict=True)
        return torch.stack([finite_scalar_bound(column, level) / (level // 2) for column, level in columns], dim=1)

    def code_tensors(self) -> dict[str, Tensor]:
        """Return none: the levels alone decide."""
        return {}

    def extra_repr(self) -> str:
        """Return the levels and their product, for `print(model)`."""
        return f"levels={list(self.levels)}, num_codes={self.num_codes}"
