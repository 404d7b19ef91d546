"""Residual quantization (Lee et al., 2022; Zeghidour et al., 2021): each stage describes the error of those before it.

Stage i quantizes r_i = z - sg[c_1 + .. + c_(i-1)], and the latents are the sum of all codes c_i (Lee et al.,
section 3.1). The earlier codes are detached: so each stage's commitment |r_i - sg[c_i]|^2 equals
|z - sg[c_1 + .. + c_i]|^2 in value and in gradient, which is RQ-VAE's cumulative commitment, and a stage's codebook
learns from its own loss alone.
"""

# Axes: B batch, D latent channels, H x W latent grid, K codes, Q codebooks.

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from imtok.distributed import draw_for_rows
from imtok.quantizers.base import Quantized, Quantizer
from imtok.quantizers.composite import CompositeQuantizer, join_codes, mean_losses, split_codes
from imtok.quantizers.refusal import refuse_non_finite


class ResidualQuantizer(CompositeQuantizer):
    """Latents as a sum of codes: (B, D, H, W) -> codes (B, H, W, Q), one a stage; (B, H, W) where Q is 1.

    stages
        Quantizers with the same `dim` and `num_codes`, or one quantizer, shared by all stages, with `depth`. A shared
        codebook that learns by moving averages learns once a stage: in training each stage already searches what
        the one before it has changed.
    scales
        Stage i quantizes its residual divided by scales[i] and its code counts scales[i] times: one number a stage,
        or one for each dimension. Left out: 1 for stages that learn where the residuals are; 2 ** -i for those whose
        codes have a fixed size (FSQ, LFQ, BSQ, a cosine codebook): of fixed ratios it had the least error on latents
        in (-1, 1) at depths 3 and 4, for LFQ, BSQ and FSQ of 5 or more levels, and up to 20 times less than 1/levels.
        Latents far beyond 1 want slower ones (0.7 for FSQ), FSQ of 3 levels there 3 ** -i. Losses are taken on the
        scaled residual.
    quantizer_dropout
        In training, with this probability each image is described by its first n stages alone, n uniform in
        1 .. depth (SoundStream; DAC): then the first codes make a picture by themselves. Codes are
        returned, and losses taken, of all stages.

    The decoder's gradient reaches the latents as the mean over the stages that describe the image: exactly once where
    stages pass it straight through. What a stage's own tensors get of it is divided by their number too.
    """

    part_name = "stage"
    times_name = "depth"

    def __init__(
        self,
        stages: Quantizer | Sequence[Quantizer],
        *,
        depth: int | None = None,
        scales: Sequence[float | Sequence[float]] | None = None,
        quantizer_dropout: float = 0.0,
    ) -> None:
        super().__init__(stages, depth)
        first = self.uses[0]
        if first.code_dim != first.dim:
            raise ValueError(
                f"the stages take {first.dim} channels and give {first.code_dim}: no residual can be taken; "
                "give stages whose code_dim is their dim"
            )
        if not 0 <= quantizer_dropout <= 1:
            raise ValueError(f"quantizer_dropout is {quantizer_dropout}, expected [0, 1]: a probability")
        self.dim = first.dim
        self.depth = len(self.uses)
        self.quantizer_dropout = quantizer_dropout
        # Not a buffer: like FSQ's levels they are configuration, which no cast or move of the module may change.
        self._scales = _checked_scales(scales, self.uses)

    @property
    def scales(self) -> Tensor:
        """The scale of each stage in each dimension, (stages, D) float32 on the CPU."""
        return torch.tensor(self._scales, dtype=torch.float32, device="cpu")

    @property
    def residual_ratio(self) -> float:
        """That of all stages, one after the other."""
        return math.prod(stage.residual_ratio for stage in self.uses)

    @property
    def least_codebooks(self) -> int:
        """The number of codebooks of the first stage, which a decoder can use alone."""
        return self.uses[0].num_codebooks

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; bad latents are refused before any stage learns."""
        if self.training:
            # The first stage may refuse on its rank alone.
            refuse_non_finite(latents, together=self.refuses_together)
        described = torch.zeros((), dtype=latents.dtype, device=latents.device)
        values, codes, losses = [], [], []
        for stage, scale in zip(self.uses, self._scales_of(latents), strict=True):
            # The sum is taken from the latents, not one code after the other from the rest: what is left to describe
            # then counts the rounding of the sum itself.
            out: Quantized = stage((latents - described) / scale)
            values.append(out.latents * scale)
            codes.append(out.codes)
            losses.append(out.losses)
            described = described + values[-1].detach()
        return self._sum(values), join_codes(codes), mean_losses(losses)

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W, Q), or those of the first stages alone, as latents (B, D, H, W).

        Codes (B, H, W, n) of the first n codebooks, where these end a stage, give a coarser picture: the sum of those
        stages.
        """
        stages = self._described(codes)
        values = [stage.lookup(piece) for stage, piece in zip(stages, split_codes(codes, stages), strict=True)]
        scales = self._scales_of(values[0])
        return reduce(torch.add, [value * scale for value, scale in zip(values, scales, strict=False)])

    def code_tensors(self) -> dict[str, Tensor]:
        """Return those of the stages, a shared one's once, and the scales."""
        return super().code_tensors() | {"scales": self.scales}

    def _sum(self, values: list[Tensor]) -> Tensor:
        """Add the latents of the stages in the order of `lookup`, and share the gradient among them."""
        if self.training and self.quantizer_dropout > 0:
            depths = self._draw_depths(values[0])  # (B, 1, 1, 1)
            zero = values[0].new_zeros(())
            values = [torch.where(index < depths, value, zero) for index, value in enumerate(values)]
            return reduce(torch.add, [_divide_gradient(value, depths) for value in values])
        return reduce(torch.add, [_divide_gradient(value, self.depth) for value in values])

    def _draw_depths(self, latents: Tensor) -> Tensor:
        """Draw how many stages describe each image: (B, 1, 1, 1) int64 in 1 .. depth."""
        device, tail = latents.device, (1, 1, 1)

        def draw(rows: int) -> Tensor:
            depths = torch.randint(1, self.depth + 1, (rows, *tail), device=device)
            return torch.cat([depths, torch.rand(rows, *tail, device=device)], dim=1)

        drawn, chance = torch.split(draw_for_rows(latents, draw), 1, dim=1)
        return torch.where(chance < self.quantizer_dropout, drawn.long(), self.depth)

    def _described(self, codes: Tensor) -> list[Quantizer]:
        """Return as many first stages as there are codes for; raises ValueError where codes end amid a stage."""
        stages = self.uses
        ends = [sum(stage.num_codebooks for stage in stages[: index + 1]) for index in range(self.depth)]
        if self.num_codebooks == 1 and codes.ndim == 3:
            return stages
        if self.num_codebooks > 1 and codes.ndim == 4 and codes.shape[3] in ends:
            return stages[: ends.index(codes.shape[3]) + 1]
        expected = "(B, H, W)" if self.num_codebooks == 1 else f"(B, H, W, {self.num_codebooks})"
        coarser = f", or {', '.join(map(str, ends[:-1]))} of them for a coarser picture" if self.depth > 1 else ""
        raise ValueError(f"codes are {tuple(codes.shape)}, expected {expected}{coarser}")

    def _scales_of(self, latents: Tensor) -> list[Tensor]:
        """Return the scale of each stage, (1, D, 1, 1), in the precision of the latents."""
        table = torch.tensor(self._scales, dtype=torch.float32, device=latents.device)
        return list(table.to(latents.dtype).view(self.depth, 1, -1, 1, 1))


def _divide_gradient(values: Tensor, number: Tensor | int) -> Tensor:
    """Return the values to the last bit, their gradient divided by `number`, which may differ from image to image."""
    if not values.requires_grad:
        return values
    return values.detach() + (values - values.detach()) / number


def _checked_scales(scales: Sequence[float | Sequence[float]] | None, stages: Sequence[Quantizer]) -> list[list[float]]:
    """Return a row of D numbers for each stage; raises ValueError on numbers that are not finite or not above 0."""
    depth, dim = len(stages), stages[0].dim
    if scales is None:
        scales = [math.prod(stage.residual_ratio for stage in stages[:index]) for index in range(depth)]
    if len(scales) != depth:
        raise ValueError(f"there are {len(scales)} scales for {depth} stages, expected one a stage")
    rows = [[float(number) for number in row] if isinstance(row, Sequence) else [float(row)] * dim for row in scales]
    if any(len(row) != dim for row in rows):
        raise ValueError(f"scales have {[len(row) for row in rows]} numbers a stage, expected one or {dim}")
    limits = torch.finfo(torch.float32)
    if not all(0 < float(number) <= limits.max for row in rows for number in row):
        raise ValueError(f"scales are {list(scales)}, expected finite numbers above 0")
    return rows
