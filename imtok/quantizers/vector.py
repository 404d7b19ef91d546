"""Vector quantization against a learned codebook (van den Oord et al., 2017).

VQ is three independent choices rather than many classes: how a code is found (`metric`), how the gradient passes
(`estimator`) and how the codebook learns (`codebook_update`), plus a k-means start, and the restart or the online
clustering of dead codes.
"""

# Axes: B batch, D latent channels, H x W latent grid, N = B*H*W vectors, K codes.

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imtok.distributed import is_distributed, joint_mean
from imtok.kernels import (
    assignment_entropies,
    assignment_logits,
    nearest_codes,
    propagate_index,
    rotate_to,
    unit_rows,
)
from imtok.kernels.nearest import Metric
from imtok.quantizers.base import mean_square, to_grid, to_rows
from imtok.quantizers.codebook import CodebookPass, CodebookQuantizer
from imtok.quantizers.record import signature
from imtok.quantizers.refusal import refusing_together
from imtok.quantizers.vector_config import Estimator, VQConfig
from imtok.recomputation import is_recomputed, may_be_recomputed, random_state


class VectorQuantizer(CodebookQuantizer):
    """Each latent becomes the nearest of `num_codes` learned vectors.

    The options are the fields of `imtok.quantizer_config.VQConfig`, with its checks and defaults. Only the k-means
    start and the restart of dead codes are off here unless they are requested, since they need more of the caller:
    see `take_moved_codes`.

    metric
        `euclidean`; `cosine`: latents and codes are l2-normalised at the search, at the look-up and so on decode
        (ViT-VQGAN, LlamaGen); `dot`: the greatest product, for index propagation alone.
    unit_lookup
        Codes are searched by Euclidean distance as they are, and looked up at length 1, as transformers' Janus has it.
        Losses compare latents with the codes that are searched.
    estimator
        `straight_through` copies the decoder's gradient to the latent; `rotation` turns it (Fifty et al., 2024).
        `index_propagation` (IBQ, Shi et al., 2024, equation 4) sends it through softmax(z.e) to the latent and to
        every code. Its N x K softmax is inherent wherever a gradient is needed; under `no_grad` there is none. It
        has the loss `double_quantization`, |z - e|^2 through that softmax, at weight 1; published:
        commitment_weight=1, codebook_weight=0.25, entropy_weight=0.05.
    codebook_update
        `ema`: moving averages of the latents that chose a code (van den Oord et al., 2017, appendix A.1, with the
        Laplace smoothing of its reference code). Counts start at 1, so that an unused code stays where it is until
        its count has decayed to about `eps`, after some hundred steps; then the smoothing draws it to the origin,
        unless dead codes restart. At
        decay 0, without memory, that is the first step at which no latent chose it.
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
        or softmax(z.e / T) for `dot` (LlamaGen, IBQ): certain of each code, even over all. The mean is that of the
        joint batch. Above 0 it makes an N x K table at each training step; evaluation leaves the loss out.
    projection_bias
        Whether the projection has a bias: SimVQ's own code has one, vector-quantize-pytorch's not.
    kmeans_start
        The first training batch that holds latents sets the codebook by k-means. It weighs as one step in the moving
        averages, so that these follow the latents closely in the first 1 / (1 - decay) steps.
    revival_threshold
        Of dead-code restart: a code is moved to a random latent of the batch when none of the last 1 / threshold
        latents for each code of the codebook chose it. That number is of a codebook that has seen 400 latents a code;
        it grows with the square root of the latents seen. 0 switches restarts off.
    online_clustering
        CVQ (Zheng & Vedaldi, 2023): at each step every code moves towards its nearest latent, the further the less
        it is used.

    Where a process group exists, the first training step takes the first rank's tensors, once a process; statistics
    and draws are over the joint batch of all ranks, so codebooks stay identical; and latents that one rank refuses all
    refuse. So every rank must take every training step, with latents or none. The parameters' gradients are added by
    whoever trains, weighed by the ranks' shares of the latents; where these are equal, DistributedDataParallel does it.
    The optimizer's state of a code that was moved belongs to its old place: see `take_moved_codes`.
    """

    estimator: Estimator
    entropy_temperature: float

    __signature__ = signature(VQConfig, "dim", "num_codes", kmeans_start=False, revival_threshold=0.0)

    def __init__(
        self, dim: int, num_codes: int, *, kmeans_start: bool = False, revival_threshold: float = 0.0, **options: Any
    ) -> None:
        super().__init__()
        options |= {"kmeans_start": kmeans_start, "revival_threshold": revival_threshold}
        checked = VQConfig.checked(dim=dim, num_codes=num_codes, **options)
        vars(self).update(checked.model_dump(exclude={"kind"}))  # each option is an attribute
        self.loss_weights = {"commitment": checked.commitment_weight}
        if self.codebook_update in ("gradient", "projection"):
            self.loss_weights["codebook"] = checked.codebook_weight
        if self.estimator == "index_propagation":
            self.loss_weights["double_quantization"] = 1.0
        if checked.entropy_weight > 0:
            self.loss_weights["entropy"] = checked.entropy_weight
        self._make_codebook(checked.projection_bias)

    def quantize(self, latents: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See `Quantizer.quantize`; in training mode the codebook learns after the look-up, never before.

        A recomputation by gradient checkpointing learns nothing, and reads the codebook and codes of its first pass.
        """
        rows = to_rows(latents)  # (N, D)
        if self.metric == "cosine":
            rows = unit_rows(rows)
        seen = self._seen_before(rows) if self.training and is_recomputed() else None
        learns = self.training and not is_recomputed()
        kept = learns and self._learns_in_forward and may_be_recomputed()
        before = random_state(rows.device) if kept else ()
        if learns:
            self._start_alike()
        if learns and not self.started:
            self._start(rows.detach())
        table = self._read_codebook(seen)
        codebook = self._searched_codebook(table)  # (K, D)
        # On the unit sphere the greatest product is the nearest; a zero latent, at equal products, takes code 0.
        with refusing_together(rows.device) if learns else nullcontext():
            codes = seen.codes if seen else nearest_codes(rows, codebook, self._product_metric)
        # F.embedding: its backward on a CPU is deterministic, indexing's is not.
        chosen = F.embedding(codes, codebook).to(rows.dtype)
        shown = F.embedding(codes, self._shown_codebook(codebook)).to(rows.dtype) if self.unit_lookup else chosen
        passed = self._pass_gradient(rows, shown, codebook)
        losses = self._losses(rows, chosen, passed, codebook)
        if learns:
            self._learn(rows.detach(), codes)
        if kept:
            drawn = (before, random_state(rows.device))
            self._first_passes.keep(rows, CodebookPass(codes, table.detach(), drawn), self.uses_a_step)
        return to_grid(passed, latents), to_grid(codes.unsqueeze(1), latents).squeeze(1), losses

    @property
    def _product_metric(self) -> Metric:
        return "euclidean" if self.metric == "euclidean" else "dot"

    def extra_repr(self) -> str:
        """Return the options, for `print(model)`."""
        return (
            f"dim={self.dim}, num_codes={self.num_codes}, metric={self.metric}, estimator={self.estimator}, "
            f"codebook_update={self.codebook_update}"
        )

    def _pass_gradient(self, rows: Tensor, chosen: Tensor, codebook: Tensor) -> Tensor:
        """Return the chosen codes, to the last bit, with the estimator's gradient: twice (N, D), (K, D) -> (N, D)."""
        if self.estimator == "rotation":
            return rotate_to(rows, chosen.detach())
        if self.estimator == "straight_through":
            return chosen.detach() + (rows - rows.detach())
        if not torch.is_grad_enabled():
            return chosen
        return propagate_index(rows, chosen, codebook)

    def _losses(self, rows: Tensor, chosen: Tensor, passed: Tensor, codebook: Tensor) -> dict[str, Tensor]:
        losses = {"commitment": mean_square(rows, chosen.detach())}
        if "codebook" in self.loss_weights:
            losses["codebook"] = mean_square(chosen, rows.detach())
        if "double_quantization" in self.loss_weights:
            losses["double_quantization"] = mean_square(passed, rows)
        if "entropy" in self.loss_weights and self.training:
            logits = assignment_logits(rows, codebook, self.metric) / self.entropy_temperature
            sample, batch = assignment_entropies(logits, joint_mean if is_distributed() else None)
            losses["entropy"] = sample - batch
        return losses
