"""Any quantizer over sequences: latents (B, N, D), as transformers have them, instead of grids."""

# Axes: B batch, N sequence positions, D latent channels, Q codebooks.

from __future__ import annotations

from torch import Tensor, nn

from imtok.quantizers.base import Quantized, Quantizer


class SequenceQuantizer(nn.Module):
    """Wraps a quantizer so that latents are (B, N, D) and codes (B, N), or (B, N, Q) where there are Q > 1 codebooks.

    The quantizer sees a grid of one row, so codes, losses and updates are those of the same vectors in a grid.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    @property
    def dim(self) -> int:
        """D of the latents that come in."""
        return self.quantizer.dim

    @property
    def code_dim(self) -> int:
        """D of the quantized latents."""
        return self.quantizer.code_dim

    @property
    def num_codes(self) -> int:
        """K."""
        return self.quantizer.num_codes

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return self.quantizer.num_codebooks

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weights of the quantizer itself: a change of them takes effect."""
        return self.quantizer.loss_weights

    def code_tensors(self) -> dict[str, Tensor]:
        """See `Quantizer.code_tensors`."""
        return self.quantizer.code_tensors()

    def anneal(self, progress: float) -> None:
        """See `Quantizer.anneal`."""
        self.quantizer.anneal(progress)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, N, D); raises ValueError when D is not the quantizer's or values are not finite."""
        if latents.ndim != 3 or latents.shape[2] != self.quantizer.dim:
            raise ValueError(f"latents are {tuple(latents.shape)}, expected (B, N, {self.quantizer.dim})")
        out: Quantized = self.quantizer(latents.transpose(1, 2).unsqueeze(2))
        return Quantized(out.latents.squeeze(2).transpose(1, 2), out.codes.squeeze(1), out.losses, out.loss)

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, N) or (B, N, Q) as latents (B, N, D); raises ValueError on codes outside [0, K)."""
        if codes.ndim != (2 if self.quantizer.num_codebooks == 1 else 3):
            expected = "(B, N)" if self.quantizer.num_codebooks == 1 else "(B, N, Q)"
            raise ValueError(f"codes are {tuple(codes.shape)}, expected {expected}")
        return self.quantizer.lookup(codes.unsqueeze(1)).squeeze(2).transpose(1, 2)
