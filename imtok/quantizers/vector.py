"""Vector quantization against a learned codebook (van den Oord et al., 2017).

VQ is three independent choices rather than many classes: how a code is found (`metric`), how the gradient passes
(`estimator`) and how the codebook learns (`codebook_update`), plus a k-means start and the revival of dead codes.
"""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.kernels import codebook_statistics, nearest_codes, rotate_to
from imtok.quantizers.base import Quantizer, mean_square, to_grid, to_rows

Estimator = Literal["straight_through", "rotation"]
CodebookUpdate = Literal["ema", "gradient"]

_KMEANS_ITERATIONS = 10


class VectorQuantizer(Quantizer):
    """Each latent becomes the nearest of `num_codes` learned vectors.

    metric
        `euclidean`, or `cosine`: latents and codes are l2-normalised at the search, at the look-up and so on
        decode (ViT-VQGAN, LlamaGen).
    estimator
        `straight_through` copies the decoder's gradient to the latent; `rotation` turns it (Fifty et al., 2024).
    codebook_update
        `ema`: moving averages of the latents that chose a code (van den Oord et al., 2017, appendix A.1, with the
        Laplace smoothing of its reference code). Counts start at 1, so that an unused code stays where it is until
        its count has decayed to about `eps`, after some hundred steps; then the smoothing draws it to the origin.
        `gradient`: the codebook is a parameter and learns by the `codebook` loss.
    commitment_weight, codebook_weight
        Weights of |z - sg[e]|^2, which moves the encoder, and of |sg[z] - e|^2, which moves the codebook (equation
        3). Published code that has beta on the codebook term is commitment_weight=1, codebook_weight=beta.
    kmeans_start
        The first training batch sets the codebook by k-means.
    revival_threshold
        A code whose moving count falls below this fraction of the mean over all codes is put on a random latent of
        the batch, all of its statistics reset. 0 switches revival off.

    All statistics are summed over ranks where a process group exists, so codebooks stay identical.
    """

    codebook: Tensor  # (K, D)
    cluster_size: Tensor  # (K,) moving count of latents per code
    embed_sum: Tensor  # (K, D) moving sum of those latents; `ema` only
    started: Tensor  # () bool: the k-means start has been made

    def __init__(
        self,
        dim: int,
        num_codes: int,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        estimator: Estimator = "straight_through",
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        kmeans_start: bool = False,
        revival_threshold: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        _check_choices(metric, estimator, codebook_update)
        _check_numbers(dim, num_codes, decay, commitment_weight, codebook_weight, revival_threshold)
        if codebook_update == "ema" and metric == "euclidean" and commitment_weight == 0:
            raise ValueError(
                "an EMA codebook with commitment_weight 0 diverges: nothing holds the latents near the codes; "
                "give a commitment_weight above 0 (0.25 is usual) or metric='cosine'"
            )
        if codebook_update == "gradient" and codebook_weight == 0:
            raise ValueError(
                "a gradient codebook with codebook_weight 0 never learns; give 1.0 or codebook_update='ema'"
            )
        self.dim, self.num_codes = dim, num_codes
        self.metric, self.estimator, self.codebook_update = metric, estimator, codebook_update
        self.decay, self.eps = decay, eps
        self.kmeans_start, self.revival_threshold = kmeans_start, revival_threshold
        self.loss_weights = {"commitment": commitment_weight}
        # Norms near those of typical latents: the U(-1/K, 1/K) of the first implementations starts all codes at
        # the origin, where a rotation's scale |q|/|e| is next to nothing.
        codebook = torch.randn(num_codes, dim) * dim**-0.5
        if metric == "cosine":
            codebook = F.normalize(codebook, dim=1)
        if codebook_update == "gradient":
            self.loss_weights["codebook"] = codebook_weight
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("embed_sum", codebook.clone())
        self.register_buffer("cluster_size", torch.ones(num_codes))
        self.register_buffer("started", torch.tensor(not kmeans_start))

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; in training mode the codebook learns after the look-up, never before."""
        rows = to_rows(latents)  # (N, D)
        if self.metric == "cosine":
            rows = F.normalize(rows, dim=1)
        if self.training and not self.started:
            self._start(rows.detach())
        table = self._table()  # (K, D)
        codes = nearest_codes(rows, table)  # on the unit sphere the Euclidean order is the cosine order
        # F.embedding: its backward on a CPU is deterministic, indexing's is not.
        chosen = F.embedding(codes, table).to(rows.dtype)
        losses = {"commitment": mean_square(rows, chosen.detach())}
        if self.codebook_update == "gradient":
            losses["codebook"] = mean_square(chosen, rows.detach())
        if self.estimator == "rotation":
            passed = rotate_to(rows, chosen.detach())
        else:
            passed = chosen.detach() + (rows - rows.detach())
        if self.training:
            self._learn(rows.detach(), codes)
        return to_grid(passed, latents), to_grid(codes.unsqueeze(1), latents).squeeze(1), losses

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (B, H, W) -> latents (B, D, H, W): codebook rows, l2-normalised for the cosine metric."""
        self._check_codes(codes)
        return F.embedding(codes.long(), self._table()).movedim(-1, 1)

    def code_tensors(self) -> dict[str, Tensor]:
        """The codebook, as the search sees it."""
        return {"codebook": self._table().detach()}

    def extra_repr(self) -> str:
        """The choices, for `print(model)`."""
        return (
            f"dim={self.dim}, num_codes={self.num_codes}, metric={self.metric}, estimator={self.estimator}, "
            f"codebook_update={self.codebook_update}"
        )

    def _table(self) -> Tensor:
        """The codes as they are searched and looked up: (K, D)."""
        if self.metric == "euclidean":
            return self.codebook
        # Of a copy where revival may write to the codebook before the backward pass reads what it saved.
        revives = self.training and self.revival_threshold > 0
        return F.normalize(self.codebook.clone() if revives else self.codebook, dim=1)

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        rows = rows.to(self.codebook.dtype)  # latents may be float64 where the codebook is float32
        counts, sums = codebook_statistics(rows, codes, self.num_codes)
        _sum_over_ranks(counts, sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        if self.codebook_update == "ema":
            self.embed_sum.lerp_(sums, 1 - self.decay)
            total = self.cluster_size.sum()
            smoothed = (self.cluster_size + self.eps) / (total + self.num_codes * self.eps) * total  # (K,)
            averages = self.embed_sum / smoothed.unsqueeze(1)
            self.codebook.copy_(F.normalize(averages, dim=1) if self.metric == "cosine" else averages)
        if self.revival_threshold > 0:
            # Of the moving counts, which start at 1: a share of this batch's could be above all of them at first.
            self._revive(rows, self.cluster_size.mean())

    def _revive(self, rows: Tensor, fair_share: Tensor) -> None:
        """Put dead codes on random latents, with the fair share as their count so that they get time to live."""
        dead = (self.cluster_size < self.revival_threshold * fair_share).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        drawn = torch.randint(len(rows), (len(dead),), device=rows.device)
        fresh = _from_first_rank(rows[drawn])
        self.codebook.data[dead] = fresh
        self.cluster_size[dead] = fair_share
        if self.codebook_update == "ema":
            self.embed_sum[dead] = fresh * fair_share

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        """Lloyd's k-means on the first batch; clusters left empty keep the latent they were drawn from."""
        if len(rows) >= self.num_codes:
            drawn = torch.randperm(len(rows), device=rows.device)[: self.num_codes]
            centres = rows[drawn]
        else:
            drawn = torch.randint(len(rows), (self.num_codes,), device=rows.device)
            # Repeated draws are told apart by noise well below the spread of the latents.
            noise = torch.randn_like(rows[drawn]) * rows.std(dim=0, correction=0).mean() * 0.1
            centres = rows[drawn] + noise
        centres = _from_first_rank(centres)
        counts = centres.new_ones(self.num_codes)
        for _ in range(_KMEANS_ITERATIONS):
            if self.metric == "cosine":
                centres = F.normalize(centres, dim=1)
            counts, sums = codebook_statistics(rows, nearest_codes(rows, centres), self.num_codes)
            _sum_over_ranks(counts, sums)
            centres = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), centres)
        if self.metric == "cosine":
            centres = F.normalize(centres, dim=1)
        self.codebook.data.copy_(centres)
        self.cluster_size.copy_(counts.clamp(min=1))
        if self.codebook_update == "ema":
            self.embed_sum.copy_(centres * self.cluster_size.unsqueeze(1))
        self.started.fill_(True)


def _check_choices(metric: str, estimator: str, codebook_update: str) -> None:
    for name, value, choices in (
        ("metric", metric, ("euclidean", "cosine")),
        ("estimator", estimator, ("straight_through", "rotation")),
        ("codebook_update", codebook_update, ("ema", "gradient")),
    ):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def _check_numbers(dim: int, num_codes: int, decay: float, commitment: float, codebook: float, revival: float) -> None:
    if dim < 1 or num_codes < 1:
        raise ValueError(f"dim {dim} and num_codes {num_codes} must be 1 or more")
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}, expected [0, 1); 0.99 averages over about 100 steps")
    if not (0 <= commitment < math.inf and 0 <= codebook < math.inf):
        raise ValueError(
            f"commitment_weight {commitment} and codebook_weight {codebook} must be finite and not negative"
        )
    if not 0 <= revival < 1:
        raise ValueError(f"revival_threshold is {revival}, expected [0, 1): a fraction of the fair share N/K")


def _sum_over_ranks(*tensors: Tensor) -> None:
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)


def _from_first_rank(tensor: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor
