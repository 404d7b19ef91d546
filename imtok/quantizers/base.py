"""The contract every quantizer keeps: one forward, one look-up, one named result."""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.precision import at_least_float32, is_narrow, keeping_float32
from imtok.quantizers.refusal import codes_in_range, codes_of_finite
from imtok.recomputation import is_recomputed

# Buffers that only a training run needs, which is to go on bit for bit: a tokenizer's files leave them out.
TRAINING_STATE = ("age", "latents_seen")
# Buffers that are 0 or 1: floats in a module, for averages of models, and bools in a tokenizer's files.
FLAGS = ("started",)


@dataclass(frozen=True, eq=False)  # tensors have no one answer to ==
class Quantized:
    """The result of a quantizer."""

    latents: Tensor  # (B, code_dim, H, W) for the decoder; their gradient reaches the encoder
    codes: Tensor  # (B, H, W) int64 in [0, K); (B, H, W, Q) where there are Q > 1 codebooks
    losses: dict[str, Tensor]  # scalars by name, unweighted; empty where the method has none
    loss: Tensor  # scalar: the losses weighted by `quantizer.loss_weights`, zero where there are none


class Quantizer(nn.Module, ABC):
    """Latents (B, D, H, W) to codes (B, H, W) and back.

    `lookup(forward(z).codes)` is, to the last bit, the latents of an eval-mode forward. Quantizers compute in
    float32 whatever autocast surrounds them, since bfloat16 merges neighbouring codes, and in float64 where the
    latents or the quantizer (`dtype`) are. Float64 latents of a float32 quantizer equal the look-up up to the rounding
    of float32. An empty batch gives no codes and zero losses, and changes no state. At evaluation the losses that serve
    training alone, `entropy` and `kl`, are left out.
    """

    dim: int
    num_codes: int
    num_codebooks: int = 1
    uses_a_step: int = 1  # how often one forward of the whole quantizer uses this one: more where stages share it
    loss_weights: dict[str, float]
    _precision: Tensor  # () only its dtype matters

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_precision", torch.zeros((), dtype=torch.float32), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of `lookup`: float32, or float64 after `.double()`; no cast makes a quantizer narrower."""
        return self._precision.dtype

    @property
    def residual_ratio(self) -> float:
        """Size of the next residual stage's codes relative to this one's: 1 where codes learn to lie at the latents."""
        return 1.0

    @property
    def code_dim(self) -> int:
        """Channels of the quantized latents: `dim`, unless codes lie in a space of their own."""
        return self.dim

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, D, H, W); raises ValueError when D is not `dim` or values are not finite."""
        if latents.ndim != 4 or latents.shape[1] != self.dim:
            raise ValueError(f"latents are {tuple(latents.shape)}, expected (B, {self.dim}, H, W)")
        with torch.autocast(latents.device.type, enabled=False):
            full = latents.to(torch.promote_types(latents.dtype, self.dtype))
            quantized, codes, losses = self.quantize(full)
            codes = codes_of_finite(codes, full)
            loss = full.new_zeros(())
            for name, value in losses.items():
                loss = loss + self.loss_weights[name] * value
        return Quantized(quantized, codes, losses, loss)

    @abstractmethod
    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return quantized latents, codes (B, H, W) and unweighted losses of latents (B, D, H, W), at least float32."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) int64 as latents (B, code_dim, H, W); raises ValueError on codes outside [0, K)."""

    @abstractmethod
    def code_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that decide which code a latent gets; the tokenizer's fingerprint hashes them."""

    @property
    def base_quantizers(self) -> list[Quantizer]:
        """The quantizer behind each of the Q codebooks, in order; a shared one comes several times."""
        return [self]

    @property
    def least_codebooks(self) -> int:
        """The least number of codebooks that `lookup` takes: fewer than all where the first make a coarser picture."""
        return self.num_codebooks

    def comparable_latents(self, latents: Tensor) -> Tensor | None:
        """Return latents as they are compared with codes, (B, D, H, W) both; None where codes lie in another space."""
        return latents

    def anneal(self, progress: float) -> None:
        """Receive the share of the run that is done, in [0, 1]; the trainer calls it before each step."""

    @property
    def refuses_together(self) -> bool:
        """Return whether all ranks take part in this forward, so that all must raise where one does."""
        return self.training and not is_recomputed()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Cast as `nn.Module` does under `.to` or `.half`, but keep all tensors at least float32."""
        super()._apply(keeping_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Widen the tensors of a narrower state, which `load_state_dict(assign=True)` would take as they are."""
        narrow = {name: value for name, value in state_dict.items() if name.startswith(prefix) and is_narrow(value)}
        state_dict |= {name: at_least_float32(value) for name, value in narrow.items()}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _check_codes(self, codes: Tensor) -> Tensor:
        """Return the codes; raises ValueError on their type, their shape, and values outside [0, K)."""
        if codes.dtype == torch.bool or codes.is_floating_point() or codes.is_complex():
            raise ValueError(f"codes must be integers, got {codes.dtype}")
        tail = () if self.num_codebooks == 1 else (self.num_codebooks,)
        if codes.ndim != 3 + len(tail) or codes.shape[3:] != tail:
            expected = "(B, H, W)" if self.num_codebooks == 1 else f"(B, H, W, {self.num_codebooks})"
            raise ValueError(f"codes are {tuple(codes.shape)}, expected {expected}")
        return codes_in_range(codes, self.num_codes)


def whole_number(name: str, value: float) -> int:
    """Return the value as an int, 8.0 as 8; raises ValueError where it is not whole."""
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{name} is {value}, expected a whole number")
    return int(value)


def mean_square(values: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared difference, a scalar; zero rather than NaN where there are no values."""
    return F.mse_loss(values, targets, reduction="sum") / max(values.numel(), 1)


def to_rows(latents: Tensor) -> Tensor:
    """Lay latents (B, D, H, W) out as (N, D), one row for each grid position."""
    return latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])


def to_grid(rows: Tensor, like: Tensor) -> Tensor:
    """Lay rows (N, D) out as (B, D, H, W), with the batch and grid of `like` (B, *, H, W)."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, rows.shape[1]).permute(0, 3, 1, 2)
