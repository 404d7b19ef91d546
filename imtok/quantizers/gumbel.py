"""Gumbel-softmax quantization (Jang et al., 2017, "Categorical Reparameterization with Gumbel-Softmax").

The encoder's latents become K logits; in training a code is drawn from them by Gumbel noise, and the gradient is that
of the softmax at a temperature that falls over the run (DALL-E: Ramesh et al., 2021, section 2.1 and appendix A.2).
At evaluation the code is the largest logit, without noise: where taming-transformers' GumbelQuantize still draws,
a tokenizer must give the same codes for the same image.
"""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes, E channels of a code.

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.distributed import draw_for_rows
from imtok.kernels import nearest_codes
from imtok.quantizers.base import Quantizer, to_grid, to_rows
from imtok.quantizers.gumbel_config import GumbelConfig
from imtok.quantizers.record import signature
from imtok.quantizers.refusal import refuse_where

_NOT_FINITE = "the latents or the weights of the logits hold NaN or infinite values; no code exists"


class GumbelQuantizer(Quantizer):
    """Draws one of `num_codes` learned vectors by logits that are linear in the latents.

    code_dim
        Channels of a code, which is not compared with the latents and so needs no equal size; `dim` if left out.
    temperature, final_temperature
        Of the softmax that carries the gradient, at the start and the end of the run, exponential in between (`anneal`;
        Jang et al., section 4); DALL-E ends at 1/16. The share of the run that is done is saved with the state.
    kl_weight
        Weight of the `kl` loss, the mean over positions of KL(softmax(logits) || uniform) in nats. It keeps codes
        from falling out of use.
    straight_through
        The decoder reads one code in training too (the paper's ST Gumbel-softmax); otherwise it reads the softmax's
        mixture of codes, and only evaluation shows it single ones.

    The codes returned in training are those drawn. Memory is N x K by nature wherever a gradient is needed, since all
    logits carry it; evaluation under `no_grad` searches the largest logit and has no such table.
    """

    progress: Tensor  # () float32 in [0, 1]: how much of the run is done

    __signature__ = signature(GumbelConfig, "dim", "num_codes")

    temperature: float
    final_temperature: float
    straight_through: bool

    def __init__(self, dim: int, num_codes: int, **options: Any) -> None:
        super().__init__()
        checked = GumbelConfig.checked(dim=dim, num_codes=num_codes, **options)
        vars(self).update(checked.model_dump(exclude={"kind", "code_dim"}))  # each option is an attribute
        self._code_dim = checked.code_dim or checked.dim
        self.loss_weights = {"kl": checked.kl_weight}
        self.projection = nn.Linear(self.dim, self.num_codes, dtype=torch.float32)
        self.codebook = nn.Parameter(torch.randn(self.num_codes, self._code_dim, dtype=torch.float32))
        self.register_buffer("progress", torch.zeros((), dtype=torch.float32))

    @property
    def code_dim(self) -> int:
        """Channels of a code."""
        return self._code_dim

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; noise is drawn and the divergence taken in training alone."""
        rows = to_rows(latents)
        losses = {}
        if self.training:
            logits = self.logits(rows)
            if not torch.compiler.is_compiling():
                refuse_where(~torch.isfinite(logits.detach()).all(), _NOT_FINITE, together=self.refuses_together)
            chosen, codes = self.choose(logits, _noise_of_rows(logits))
            losses["kl"] = kl_to_uniform(logits)
        else:
            codes = self.likeliest(rows)
            chosen = self._read(codes, self.logits(rows) if torch.is_grad_enabled() else None, rows.dtype)
        return to_grid(chosen, latents), to_grid(codes.unsqueeze(1), latents).squeeze(1), losses

    def likeliest(self, rows: Tensor) -> Tensor:
        """Find the code of the largest logit without a table of logits: (N, D) -> (N,) int64."""
        weights = torch.cat([self.projection.weight, self.projection.bias.unsqueeze(1)], dim=1)  # (K, D + 1)
        return nearest_codes(F.pad(rows, (0, 1), value=1.0), weights, "dot")

    def logits(self, rows: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the codes: (N, D) -> (N, K), in the precision of the latents."""
        return F.linear(rows, self.projection.weight.to(rows.dtype), self.projection.bias.to(rows.dtype))

    def choose(self, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's input (N, E) and codes (N,) int64, for logits and the noise drawn: twice (N, K).

        The gradient is that of softmax((logits + noise) / temperature) times the codebook (equation 2), and
        for the codebook that of the code drawn alone where it is straight-through.
        """
        noisy = logits + noise
        codes = noisy.detach().argmax(dim=1)
        return self._read(codes, noisy, logits.dtype), codes

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) as latents (B, code_dim, H, W): codebook rows."""
        codes = self._check_codes(codes)
        return F.embedding(codes.long(), self.codebook.to(self.dtype)).movedim(-1, 1)

    def comparable_latents(self, latents: Tensor) -> None:
        """Return None: latents become logits, and codes lie in a space of their own."""
        del latents

    def code_tensors(self) -> dict[str, Tensor]:
        """Return the weights of the logits, and the codebook, which in a residual decides later stages."""
        return {
            "weight": self.projection.weight.detach(),
            "bias": self.projection.bias.detach(),
            "codebook": self.codebook.detach(),
        }

    def anneal(self, progress: float) -> None:
        """Set the temperature for a share of the run in [0, 1]; raises ValueError on any other."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}, expected [0, 1]: the share of the run that is done")
        self.progress.fill_(progress)

    def current_temperature(self) -> Tensor:
        """Return the temperature at this point of the run, a scalar on the device of the weights."""
        return self.temperature * (self.final_temperature / self.temperature) ** self.progress

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return (
            f"dim={self.dim}, num_codes={self.num_codes}, code_dim={self.code_dim}, temperature={self.temperature}, "
            f"final_temperature={self.final_temperature}, straight_through={self.straight_through}"
        )

    def _read(self, codes: Tensor, noisy: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the decoder's input (N, E): codes (N,), logits (N, K) unless they need no gradient."""
        table = self.codebook.to(dtype)  # (K, E)
        chosen = F.embedding(codes, table)
        if noisy is None or (not torch.is_grad_enabled() and not self._mixes()):
            return chosen
        soft = F.softmax(noisy / self.current_temperature().to(dtype), dim=1)
        if self._mixes():
            return soft @ table
        mixture = soft @ table.detach()
        # A zero that carries the gradient: the value stays the code to the last bit.
        return chosen + (mixture - mixture.detach())

    def _mixes(self) -> bool:
        return self.training and not self.straight_through


def gumbel_noise(like: Tensor) -> Tensor:
    """Draw standard Gumbel noise, finite, of the shape and dtype of `like`."""
    # -log of an exponential draw is Gumbel; a draw of zero would give an infinity and then a NaN softmax.
    drawn = torch.empty_like(like).exponential_().clamp_(min=torch.finfo(like.dtype).tiny)
    return -drawn.log()


def _noise_of_rows(logits: Tensor) -> Tensor:
    """Draw the noise of logits (N, K), as one process would for the joint batch."""
    row_bytes = logits.shape[1] * logits.element_size()
    return draw_for_rows(logits, lambda rows: gumbel_noise(logits.new_empty(rows, logits.shape[1])), row_bytes)


def kl_to_uniform(logits: Tensor) -> Tensor:
    """Return the mean over rows of sum_k q_k log(q_k K), q = softmax(logits): (N, K) -> scalar, 0 without rows."""
    log_q = F.log_softmax(logits, dim=1)
    divergence = (log_q.exp() * (log_q + math.log(logits.shape[1]))).sum()
    return divergence / max(len(logits), 1)
