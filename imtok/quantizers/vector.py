"""Vector quantization against a learned codebook (van den Oord et al., 2017).

VQ is three independent choices rather than many classes: how a code is found (`metric`), how the gradient passes
(`estimator`) and how the codebook learns (`codebook_update`), plus a k-means start, and the revival or the online
clustering of codes that are not used.
"""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.kernels import (
    assignment_entropies,
    assignment_logits,
    codebook_statistics,
    nearest_codes,
    propagate_index,
    rotate_to,
    unit_rows,
)
from imtok.quantizers.base import Quantizer, mean_square, to_grid, to_rows
from imtok.quantizers.clustering import anchor_pull, anchors, kmeans
from imtok.quantizers.distributed import draw_rows, joint_size, sum_over_ranks
from imtok.quantizers.vector_options import CodebookUpdate, Estimator, VectorMetric, VectorOptions

# A revived code's count, in thresholds: it has ln 2 / (1 - decay) steps, 69 at decay 0.99, to find latents.
_GRACE = 2


class VectorQuantizer(Quantizer):
    """Each latent becomes the nearest of `num_codes` learned vectors.

    metric
        `euclidean`; `cosine`: latents and codes are l2-normalised at the search, at the look-up and so on decode
        (ViT-VQGAN, LlamaGen); `dot`: the greatest product, for index propagation alone.
    estimator
        `straight_through` copies the decoder's gradient to the latent; `rotation` turns it (Fifty et al., 2024).
        `index_propagation` (IBQ, Shi et al., 2024, equation 4) sends it through softmax(z.e) to the latent and to
        every code. Its N x K softmax is inherent in training; evaluation searches in tiles. It has the loss
        `double_quantization`, |z - e|^2 through that softmax, at weight 1; published: commitment_weight=1,
        codebook_weight=0.25, entropy_weight=0.05.
    codebook_update
        `ema`: moving averages of the latents that chose a code (van den Oord et al., 2017, appendix A.1, with the
        Laplace smoothing of its reference code). Counts start at 1, so that an unused code stays where it is until
        its count has decayed to about `eps`, after some hundred steps; then the smoothing draws it to the origin.
        `gradient`: the codebook is a parameter and learns by the `codebook` loss.
        `projection` (SimVQ, Zhu et al., 2024): the codebook is fixed noise and one linear map of it learns by the
        `codebook` loss, so that all codes move together; search, losses and look-up are on the projected codes.
        `frozen`: the codebook is fixed noise and only the latents move.
    commitment_weight, codebook_weight
        Weights of |z - sg[e]|^2, which moves the encoder, and of |sg[z] - e|^2, which moves the codebook (equation
        3). Much published code has the paper's beta on the codebook term instead (taming and SimVQ with their
        default `legacy=True`, diffusers, IBQ): that order is commitment_weight=1, codebook_weight=beta.
    entropy_weight, entropy_temperature
        Weight of the `entropy` loss, the mean over latents of H(p) less H(mean of p) with p = softmax(-|z - e|^2 / T),
        or softmax(z.e / T) for `dot` (LlamaGen, IBQ): sure of each code, even over all. The mean is that of this
        rank's batch. Above 0 it makes an N x K table at each training step; evaluation leaves the loss out.
    projection_bias
        Whether the projection has a bias: SimVQ's own code has one, vector-quantize-pytorch's not.
    kmeans_start
        The first training batch that holds latents sets the codebook by k-means.
    revival_threshold
        A code whose moving count falls below this fraction of the mean over all codes is put on a random latent of
        the batch, all of its statistics reset. 0 switches revival off.
    online_clustering
        CVQ (Zheng & Vedaldi, 2023): at each step every code moves towards its nearest latent, the further the less
        it is used.

    Statistics and draws are over the joint batch of all ranks where a process group exists, so codebooks stay
    identical. An optimizer's moments of a code that was put elsewhere belong to its old place: see `take_moved_codes`.
    Buffers stay float32 in a module cast to a narrower type, since bfloat16 cannot count beyond 256.
    """

    codebook: Tensor  # (K, D)
    cluster_size: Tensor  # (K,) moving count of latents per code; `ema` and `gradient` only
    embed_sum: Tensor  # (K, D) moving sum of those latents; `ema` only
    usage: Tensor  # (K,) moving share of latents per code, from 0; online clustering only
    started: Tensor  # () bool: the k-means start has been made

    def __init__(
        self,
        dim: int,
        num_codes: int,
        *,
        metric: VectorMetric = "euclidean",
        estimator: Estimator = "straight_through",
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        entropy_weight: float = 0.0,
        entropy_temperature: float = 0.01,
        projection_bias: bool = False,
        kmeans_start: bool = False,
        revival_threshold: float = 0.0,
        online_clustering: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        VectorOptions(
            dim=dim,
            num_codes=num_codes,
            metric=metric,
            estimator=estimator,
            codebook_update=codebook_update,
            decay=decay,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
            entropy_weight=entropy_weight,
            entropy_temperature=entropy_temperature,
            kmeans_start=kmeans_start,
            revival_threshold=revival_threshold,
            online_clustering=online_clustering,
        ).check()
        self.dim, self.num_codes = dim, num_codes
        self.metric, self.estimator, self.codebook_update = metric, estimator, codebook_update
        self.decay, self.eps, self.entropy_temperature = decay, eps, entropy_temperature
        self.kmeans_start, self.revival_threshold = kmeans_start, revival_threshold
        self.online_clustering = online_clustering
        self.loss_weights = {"commitment": commitment_weight}
        if codebook_update in ("gradient", "projection"):
            self.loss_weights["codebook"] = codebook_weight
        if estimator == "index_propagation":
            self.loss_weights["double_quantization"] = 1.0
        if entropy_weight > 0:
            self.loss_weights["entropy"] = entropy_weight
        self._moved: Tensor | None = None  # (K,) bool
        self._make_codebook(projection_bias)

    def _make_codebook(self, projection_bias: bool) -> None:
        # Norms near those of typical latents: the U(-1/K, 1/K) of the first implementations starts all codes at
        # the origin, where a rotation's scale |q|/|e| is next to nothing.
        codebook = torch.randn(self.num_codes, self.dim) * self.dim**-0.5
        if self.metric == "cosine" and self.codebook_update != "projection":
            codebook = unit_rows(codebook)
        if self.codebook_update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        if self.codebook_update == "projection":
            self.projection = nn.Linear(self.dim, self.dim, bias=projection_bias)
        if self.codebook_update == "ema":
            self.register_buffer("embed_sum", codebook.clone())
        if self.codebook_update in ("ema", "gradient"):
            self.register_buffer("cluster_size", torch.ones(self.num_codes))
        if self.online_clustering:
            self.register_buffer("usage", torch.zeros(self.num_codes))
        self.register_buffer("started", torch.tensor(not self.kmeans_start))

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; in training mode the codebook learns after the look-up, never before."""
        rows = to_rows(latents)  # (N, D)
        if self.metric == "cosine":
            rows = unit_rows(rows)
        if self.training and not self.started:
            self._start(rows.detach())
        table = self._table()  # (K, D)
        # On the unit sphere the greatest product is the nearest; a zero latent, at equal products, takes code 0.
        codes = nearest_codes(rows, table, "euclidean" if self.metric == "euclidean" else "dot")
        # F.embedding: its backward on a CPU is deterministic, indexing's is not.
        chosen = F.embedding(codes, table).to(rows.dtype)
        passed = self._pass_gradient(rows, chosen, table)
        losses = self._losses(rows, chosen, passed, table)
        if self.training:
            self._learn(rows.detach(), codes)
        return to_grid(passed, latents), to_grid(codes.unsqueeze(1), latents).squeeze(1), losses

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (B, H, W) -> latents (B, D, H, W): rows of the codebook as the search sees it.

        A projected codebook is projected as a whole, since a product of fewer rows may differ in its last bits.
        """
        self._check_codes(codes)
        return F.embedding(codes.long(), self._table()).movedim(-1, 1)

    def code_tensors(self) -> dict[str, Tensor]:
        """The codebook, as the search sees it."""
        return {"codebook": self._table().detach()}

    def take_moved_codes(self) -> Tensor | None:
        """Which codes of a gradient codebook were put elsewhere since the last call, (K,) bool; None where none.

        Their gradient and an optimizer's moments belong to the old place and would push the code away from the new
        one. `imtok.quantizers.moments.forget_moved_codes` clears both; call it between `backward` and `step`.
        """
        moved, self._moved = self._moved, None
        return moved

    def extra_repr(self) -> str:
        """The choices, for `print(model)`."""
        return (
            f"dim={self.dim}, num_codes={self.num_codes}, metric={self.metric}, estimator={self.estimator}, "
            f"codebook_update={self.codebook_update}"
        )

    def _table(self) -> Tensor:
        """The codes as they are searched and looked up: (K, D), at least float32 whatever autocast surrounds it."""
        table = _wide(self.codebook)
        if self.training and self.codebook_update in ("ema", "gradient"):
            table = table.clone()  # `_learn` writes to the codebook before the backward pass reads what it saved
        if self.codebook_update == "projection":
            bias = None if self.projection.bias is None else _wide(self.projection.bias)
            with torch.autocast(table.device.type, enabled=False):
                table = F.linear(table.to(_wide(self.projection.weight).dtype), _wide(self.projection.weight), bias)
        return unit_rows(table) if self.metric == "cosine" else table

    def _pass_gradient(self, rows: Tensor, chosen: Tensor, table: Tensor) -> Tensor:
        """The chosen codes, to the last bit, with the estimator's gradient: twice (N, D), (K, D) -> (N, D)."""
        if self.estimator == "rotation":
            return rotate_to(rows, chosen.detach())
        if self.estimator == "straight_through":
            return chosen.detach() + (rows - rows.detach())
        if not (self.training and torch.is_grad_enabled()):
            return chosen
        return propagate_index(rows, chosen, table)

    def _losses(self, rows: Tensor, chosen: Tensor, passed: Tensor, table: Tensor) -> dict[str, Tensor]:
        losses = {"commitment": mean_square(rows, chosen.detach())}
        if "codebook" in self.loss_weights:
            losses["codebook"] = mean_square(chosen, rows.detach())
        if "double_quantization" in self.loss_weights:
            losses["double_quantization"] = mean_square(passed, rows)
        if "entropy" in self.loss_weights and self.training:
            logits = assignment_logits(rows, table, self.metric) / self.entropy_temperature
            sample, batch = assignment_entropies(logits)
            losses["entropy"] = sample - batch
        return losses

    @torch.no_grad()
    def _start(self, rows: Tensor) -> None:
        if joint_size(rows)[0] == 0:
            return  # it waits for a batch that holds latents
        centres, counts = kmeans(rows.to(self.cluster_size.dtype), self.num_codes, self.metric)
        self.codebook.data.copy_(centres)
        self.cluster_size.copy_(counts.clamp(min=1))
        if self.codebook_update == "ema":
            self.embed_sum.copy_(centres * self.cluster_size.unsqueeze(1))
        self.started.fill_(True)

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        if self.codebook_update in ("projection", "frozen"):
            return
        rows = rows.to(self.cluster_size.dtype)  # latents may be float64 where the codebook is float32
        if self.codebook_update == "ema":
            counts, sums = codebook_statistics(rows, codes, self.num_codes)
            sum_over_ranks(counts, sums)
        else:
            counts = torch.bincount(codes, minlength=self.num_codes).to(rows.dtype)
            sum_over_ranks(counts)
        total = counts.sum()
        if total == 0:
            return
        self.cluster_size.lerp_(counts, 1 - self.decay)
        if self.codebook_update == "ema":
            self._average(sums)
        if self.revival_threshold > 0:
            self._revive(rows)
        if self.online_clustering:
            self.usage.lerp_(counts / total, 1 - self.decay)
            self._pull_to_anchors(rows)

    def _average(self, sums: Tensor) -> None:
        self.embed_sum.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.num_codes * self.eps) * total  # (K,)
        averages = self.embed_sum / smoothed.unsqueeze(1)
        self.codebook.copy_(unit_rows(averages) if self.metric == "cosine" else averages)

    def _revive(self, rows: Tensor) -> None:
        """Put dead codes on random latents, with a count that gives them some steps to be chosen."""
        # Of the moving counts, which start at 1: a share of this batch's could be above all of them at first.
        fair_share = self.cluster_size.mean()
        threshold = self.revival_threshold * fair_share
        dead = (self.cluster_size < threshold).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        dead = dead[: joint_size(rows)[0]]  # two codes on one latent would be one code; the others wait a step
        fresh = draw_rows(rows, len(dead))
        count = torch.minimum(_GRACE * threshold, fair_share)
        self.codebook.data[dead] = fresh.to(self.codebook.dtype)
        self.cluster_size[dead] = count
        if self.codebook_update == "ema":
            self.embed_sum[dead] = fresh * count
        self._note_moved(torch.zeros_like(self.cluster_size, dtype=torch.bool).index_fill_(0, dead, True))

    def _pull_to_anchors(self, rows: Tensor) -> None:
        pull = anchor_pull(self.usage, self.decay)  # (K,)
        wide = _wide(self.codebook.data)
        self.codebook.data.copy_(
            wide.lerp(anchors(rows, self._table()).to(wide.dtype), pull.to(wide.dtype).unsqueeze(1))
        )
        self._note_moved(pull > 0.5)

    def _note_moved(self, moved: Tensor) -> None:
        if self.codebook_update == "gradient":
            self._moved = moved if self._moved is None else self._moved | moved

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> VectorQuantizer:
        """As `nn.Module`'s, under `.to`, `.half` and their like; but a buffer stays at least float32."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype in (torch.bfloat16, torch.float16):
                self._buffers[name] = old.to(buffer.device)
        return self


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
