"""IBQ (Shi et al., 2024), as TencentARC/SEED-Voken publishes it: VQGAN, whose token has the greatest dot product.

Facts from `src/IBQ/models/ibqgan.py` and `src/IBQ/modules/vqvae/quantize.py` there. Evaluation takes the moving average
of the weights, `model_ema.*`, as the reader of checkpoints does.
"""

from __future__ import annotations

from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.taming import VQ_CLASSES, has_taming_keys, is_ibq
from imtok.interop.families.vqgan_family import VQGANFamily, codebook_record, target_of
from imtok.interop.families.vqgan_layout import Layout, number_of
from imtok.quantizer_config import QuantizerConfig


class IBQ(VQGANFamily):
    """IBQ: taming's names, and a search by the greatest product."""

    name = "ibq"
    label = "IBQ of SEED-Voken"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return has_taming_keys(checkpoint) and is_ibq(checkpoint)

    def fits(self, checkpoint: Checkpoint) -> bool:
        """See `Family.fits`; not where the configuration names taming's class, whose search gives other codes."""
        return has_taming_keys(checkpoint) and target_of(checkpoint.settings).rpartition(".")[2] not in VQ_CLASSES

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`; the weights of the losses are those of the published trainings."""
        said = self.said(layout.checkpoint)
        quantizer = codebook_record(
            layout,
            metric="dot",
            estimator="index_propagation",
            commitment_weight=1.0,
            codebook_weight=number_of(said, "beta", 0.25),
            entropy_weight=0.05,
            entropy_temperature=number_of(said, "entropy_temperature", 0.01),
        )
        known = target_of(layout.checkpoint.settings)
        assumed = "IBQ's search by the greatest product: no configuration says it, taming's VQGAN has the same names"
        return quantizer, () if known else (assumed,)
