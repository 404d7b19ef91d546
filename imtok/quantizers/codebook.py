"""The codebook of vector quantization: its tensors, look-up, k-means start, updates, and the restart of dead codes."""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.distributed import (
    draw_rows,
    from_first_rank,
    is_distributed,
    joint_size,
    sum_over_ranks,
)
from imtok.kernels import codebook_statistics, unit_rows
from imtok.kernels.sphere import directions
from imtok.quantizers.base import Quantizer
from imtok.quantizers.clustering import anchor_pull, anchors, kmeans
from imtok.quantizers.vector_config import CodebookUpdate, VectorMetric

# Count of a restarted code, in thresholds: it has ln 2 / (1 - decay) steps, 69 at decay 0.99, to find latents.
_GRACE = 2


class CodebookQuantizer(Quantizer):
    """A quantizer with a codebook; `VectorQuantizer` says how codes are found and describes the options."""

    codebook: Tensor  # (K, D)
    cluster_size: Tensor  # (K,) moving count of latents per code; `ema` and `gradient` only
    embed_sum: Tensor  # (K, D) moving sum of those latents; `ema` only
    usage: Tensor  # (K,) moving share of latents per code, from 0; online clustering only
    started: Tensor  # () bool: the k-means start has been made
    metric: VectorMetric
    codebook_update: CodebookUpdate
    decay: float
    eps: float
    kmeans_start: bool
    revival_threshold: float
    online_clustering: bool
    _moved: Tensor | None = None  # (K,) bool
    _alike: bool = False  # all ranks are known to have the same tensors

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

    @property
    def residual_ratio(self) -> float:
        """1/2 on the unit sphere, where codes cannot become shorter; else 1."""
        return 0.5 if self.metric == "cosine" else 1.0

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) as latents (B, D, H, W): rows of the codebook as the search sees it.

        A projected codebook is projected as a whole, since a product of fewer rows may differ in its last bits.
        """
        self._check_codes(codes)
        return F.embedding(codes.long(), self._searched_codebook()).movedim(-1, 1)

    def comparable_latents(self, latents: Tensor) -> Tensor:
        """Return latents as they are, or at unit length for the cosine metric: (B, D, H, W) -> the same shape."""
        return directions(latents)[0] if self.metric == "cosine" else latents

    def code_tensors(self) -> dict[str, Tensor]:
        """Return the stored numbers behind the codes, since products and lengths differ in bits between machines."""
        tensors = {"codebook": self.codebook.detach()}
        if self.codebook_update == "projection":
            tensors |= {f"projection.{name}": value.detach() for name, value in self.projection.named_parameters()}
        return tensors

    def take_moved_codes(self) -> Tensor | None:
        """Return which codes of a gradient codebook were moved since the last call, (K,) bool; None where none was.

        Their gradient and the optimizer's state belong to the old place and would push the code away from the new
        one. `imtok.quantizers.forget_moved_codes` clears both; call it between `backward` and `step`.
        """
        moved, self._moved = self._moved, None
        return moved

    def _searched_codebook(self) -> Tensor:
        """Return the codes as they are searched and looked up: (K, D), at least float32 within autocast too."""
        table = _wide(self.codebook)
        if self.training and self.codebook_update in ("ema", "gradient"):
            table = table.clone()  # `_learn` writes to the codebook before the backward pass reads what it saved
        if self.codebook_update == "projection":
            bias = None if self.projection.bias is None else _wide(self.projection.bias)
            with torch.autocast(table.device.type, enabled=False):
                table = F.linear(table.to(_wide(self.projection.weight).dtype), _wide(self.projection.weight), bias)
        return unit_rows(table) if self.metric == "cosine" else table

    @torch.no_grad()
    def _start_alike(self) -> None:
        """Take the first rank's tensors, once a process: ranks that were seeded apart would stay apart."""
        if self._alike or not is_distributed():
            return
        for tensor in [*self.parameters(), *self.buffers()]:
            tensor.data.copy_(from_first_rank(tensor.data))
        self._alike = True

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
            self._restart_dead_codes(rows)
        if self.online_clustering:
            self.usage.lerp_(counts / total, 1 - self.decay)
            self._pull_to_anchors(rows)

    def _average(self, sums: Tensor) -> None:
        self.embed_sum.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.num_codes * self.eps) * total  # (K,)
        averages = self.embed_sum / smoothed.unsqueeze(1)
        self.codebook.copy_(unit_rows(averages) if self.metric == "cosine" else averages)

    def _restart_dead_codes(self, rows: Tensor) -> None:
        """Move dead codes to random latents, with a count that gives them some steps to be chosen."""
        # Fair by the moving counts, which start at 1: a share of this batch could be above all of them at first.
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
        code, anchor = _wide(self.codebook.data), anchors(rows, self._searched_codebook())
        self.codebook.data.copy_(code + pull.unsqueeze(1) * (anchor - code))
        self._note_moved(pull > 0.5)

    def _note_moved(self, moved: Tensor) -> None:
        if self.codebook_update == "gradient":
            self._moved = moved if self._moved is None else self._moved | moved


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
