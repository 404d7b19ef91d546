"""The codebook of vector quantization: its tensors, look-up, k-means start, updates, and the restart of dead codes."""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from imtok.precision import at_least_float32
from imtok.quantizers.base import Quantizer
from imtok.quantizers.clustering import anchor_pull, anchors, kmeans
from imtok.quantizers.vector_config import CodebookUpdate, VectorMetric
from imtok.recomputation import FirstPasses, draw_again

# Latents a code after which a code is dead that none of the last 1 / `revival_threshold` latents a code chose. Before,
# codes are dead sooner, and later on later, in proportion to the square root of the latents seen: a young codebook must
# keep up with an encoder that changes fast, an old one should keep its rare codes.
_REFERENCE = 400
# Latents a code that a codebook is taken to have seen whose file does not say so.
_SEEN_BEFORE = 4000


@dataclass(frozen=True)
class CodebookPass:
    """What a first pass read, for its recomputation by gradient checkpointing (`imtok.recomputation`)."""

    codes: Tensor  # (N,) int64
    table: Tensor  # (K, D) the codebook before it learned from this pass
    drawn: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # states of the random numbers before and after


class CodebookQuantizer(Quantizer):
    """A quantizer with a codebook; `VectorQuantizer` says how codes are found and describes the options."""

    codebook: Tensor  # (K, D)
    cluster_size: Tensor  # (K,) moving count of latents per code; `ema` only
    embed_sum: Tensor  # (K, D) moving sum of those latents; `ema` only
    age: Tensor  # (K,) int64 joint latents since one of them chose the code; `ema` and `gradient` only
    latents_seen: Tensor  # () int64 joint latents that the codebook has learned from; `ema` and `gradient` only
    usage: Tensor  # (K,) moving share of latents per code, from 0; online clustering only
    started: Tensor  # () 0 until the k-means start has been made; a float, as averages of models take no bool
    metric: VectorMetric
    unit_lookup: bool = False
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
        codebook = torch.randn(self.num_codes, self.dim, dtype=torch.float32) * self.dim**-0.5
        if self.metric == "cosine" and self.codebook_update != "projection":
            codebook = unit_rows(codebook)
        if self.codebook_update == "gradient":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        if self.codebook_update == "projection":
            self.projection = nn.Linear(self.dim, self.dim, bias=projection_bias, dtype=torch.float32)
        if self.codebook_update == "ema":
            self.register_buffer("embed_sum", codebook.clone())
            self.register_buffer("cluster_size", torch.ones(self.num_codes, dtype=torch.float32))
        if self.codebook_update in ("ema", "gradient"):
            self.register_buffer("age", torch.zeros(self.num_codes, dtype=torch.int64))
            self.register_buffer("latents_seen", torch.zeros((), dtype=torch.int64))
        if self.online_clustering:
            self.register_buffer("usage", torch.zeros(self.num_codes, dtype=torch.float32))
        self._first_passes = FirstPasses[CodebookPass]()
        self.register_buffer("started", torch.tensor(float(not self.kmeans_start), dtype=torch.float32))

    @property
    def residual_ratio(self) -> float:
        """1/2 on the unit sphere, where codes cannot become shorter; else 1."""
        return 0.5 if self.metric == "cosine" or self.unit_lookup else 1.0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Read states without ages too: those of tokenizers and of old versions. Ages start at 0, and none is young."""
        if f"{prefix}codebook" in state_dict and self.codebook_update in ("ema", "gradient"):
            like = state_dict[f"{prefix}codebook"]  # the module itself may be on the meta device
            before = like.new_tensor(_SEEN_BEFORE * self.num_codes, dtype=torch.int64)
            state_dict.setdefault(f"{prefix}age", like.new_zeros(self.num_codes, dtype=torch.int64))
            state_dict.setdefault(f"{prefix}latents_seen", before)
        if f"{prefix}started" in state_dict:  # a bool in files of old versions
            state_dict[f"{prefix}started"] = state_dict[f"{prefix}started"].to(self.started.dtype)
        if self.codebook_update == "gradient":
            state_dict.pop(f"{prefix}cluster_size", None)  # by which codes were found dead
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def lookup(self, codes: Tensor) -> Tensor:
        """Look up codes (B, H, W) as latents (B, D, H, W): rows of the codebook as the search sees it.

        With `unit_lookup` they have length 1. A projected codebook is projected as a whole, since a product of fewer
        rows may differ in its last bits.
        """
        codes = self._check_codes(codes)
        return F.embedding(codes.long(), self._shown_codebook(self._searched_codebook())).movedim(-1, 1)

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

    @property
    def _learns_in_forward(self) -> bool:
        return self.codebook_update in ("ema", "gradient")

    def _seen_before(self, rows: Tensor) -> CodebookPass | None:
        """Return what the first pass of these latents has read; its random draws count as drawn again."""
        if not self._learns_in_forward:
            return None  # another search finds the same
        seen = self._first_passes.find(rows)
        if seen is not None:
            draw_again(rows.device, *seen.drawn)
        return seen

    def _read_codebook(self, seen: CodebookPass | None = None) -> Tensor:
        """Return the codebook, at least float32, or the one that a first pass has seen, with the gradient of ours."""
        table = at_least_float32(self.codebook)
        if seen is not None:
            return seen.table + (table - table.detach())
        if self.training and self._learns_in_forward:
            return table.clone()  # `_learn` writes to the codebook before the backward pass reads what it saved
        return table

    def _searched_codebook(self, table: Tensor | None = None) -> Tensor:
        """Return the codes as they are searched and looked up: (K, D), at least float32 within autocast too."""
        table = self._read_codebook() if table is None else table
        if self.codebook_update == "projection":
            weight = at_least_float32(self.projection.weight)
            bias = None if self.projection.bias is None else at_least_float32(self.projection.bias)
            with torch.autocast(table.device.type, enabled=False):
                table = F.linear(table.to(weight.dtype), weight, bias)
        return unit_rows(table) if self.metric == "cosine" else table

    def _shown_codebook(self, searched: Tensor) -> Tensor:
        """Return the codes as the decoder sees them: (K, D), from those that are searched."""
        return unit_rows(searched) if self.unit_lookup else searched

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
        centres, counts = kmeans(rows.to(at_least_float32(self.codebook).dtype), self.num_codes, self.metric)
        self.codebook.data.copy_(centres)
        if self.codebook_update == "ema":
            # They weigh as one step does, so that codes first average over all steps since the start, and only after
            # 1 / (1 - decay) steps over the last of them: the encoder leaves slower codes behind at once.
            self.cluster_size.copy_(counts.clamp(min=1) * self._weight_of_a_step)
            self.embed_sum.copy_(centres * self.cluster_size.unsqueeze(1))
        self.started.fill_(1)

    @property
    def _weight_of_a_step(self) -> float:
        return 1 - self.decay

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        if self.codebook_update in ("projection", "frozen"):
            return
        rows = rows.to(at_least_float32(self.codebook).dtype)  # latents may be float64 where the codebook is float32
        if self.codebook_update == "ema":
            counts, sums = codebook_statistics(rows, codes, self.num_codes)
            sum_over_ranks(counts, sums)
        else:
            counts = torch.bincount(codes, minlength=self.num_codes).to(rows.dtype)
            sum_over_ranks(counts)
        total = int(counts.long().sum())
        if total == 0:
            return
        if self.codebook_update == "ema":
            self._average(counts, sums)
        self.latents_seen += total
        self.age.add_(total).masked_fill_(counts > 0, 0)
        if self.revival_threshold > 0:
            self._restart_dead_codes(rows, total)
        if self.online_clustering:
            self.usage.lerp_(counts / total, 1 - self.decay)
            self._pull_to_anchors(rows)

    def _average(self, counts: Tensor, sums: Tensor) -> None:
        self.cluster_size.lerp_(counts, self._weight_of_a_step)
        self.embed_sum.lerp_(sums, self._weight_of_a_step)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.eps) / (total + self.num_codes * self.eps) * total  # (K,)
        averages = self.embed_sum / smoothed.unsqueeze(1)
        averages = unit_rows(averages) if self.metric == "cosine" else averages
        if self.revival_threshold > 0:
            # The smoothing draws a code that no latent chooses to the origin; restarts alone shall move it.
            averages = torch.where((counts > 0).unsqueeze(1), averages, self.codebook)
        self.codebook.copy_(averages)

    def _restart_dead_codes(self, rows: Tensor, total: int) -> None:
        """Move dead codes to random latents of the joint batch of `total`, with the statistics of one step's fair use.

        A code is dead when no latent chose it for 1 / `revival_threshold` latents a code, times the square root of the
        share of `_REFERENCE` that the codebook has seen; and for a whole step, where several stages share the codebook.
        """
        latents_a_code = self.latents_seen.to(torch.float32) / self.num_codes  # ()
        patience = (latents_a_code / _REFERENCE).sqrt() / self.revival_threshold * self.num_codes
        dead = (self.age >= patience.clamp(min=self.uses_a_step * total)).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        if len(dead) > total:  # two codes on one latent would be one code; the younger ones wait a step
            dead = dead[self.age[dead].argsort(descending=True, stable=True)[:total]]
        fresh = draw_rows(rows, len(dead))
        self.codebook.data[dead] = fresh.to(self.codebook.dtype)
        self.age[dead] = 0
        if self.codebook_update == "ema":
            count = self._weight_of_a_step * total / self.num_codes
            self.cluster_size[dead] = count
            self.embed_sum[dead] = fresh * count
        self._note_moved(torch.zeros_like(self.age, dtype=torch.bool).index_fill_(0, dead, True))

    def _pull_to_anchors(self, rows: Tensor) -> None:
        pull = anchor_pull(self.usage, self.decay)  # (K,)
        code, anchor = at_least_float32(self.codebook.data), anchors(rows, self._searched_codebook())
        self.codebook.data.copy_(code + pull.unsqueeze(1) * (anchor - code))
        self._note_moved(pull > 0.5)

    def _note_moved(self, moved: Tensor) -> None:
        if self.codebook_update == "gradient":
            self._moved = moved if self._moved is None else self._moved | moved
