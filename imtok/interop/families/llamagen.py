"""LlamaGen's tokenizers, as they are released and as their training writes them; DeepSeek's Janus has the same layout.

Facts from FoundationVision/LlamaGen (`tokenizer/tokenizer_image/vq_model.py`): no configuration file is published, and
shapes say everything but `codebook_l2_norm`, which is on in all released checkpoints. The decoder numbers its stages
from the coarsest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.vqgan_family import VQGANFamily, codebook_record
from imtok.interop.families.vqgan_layout import TAMING, Layout, settings_of
from imtok.quantizer_config import QuantizerConfig

_RULES = {
    **TAMING,
    r"(encoder|decoder)\.(?:down|up)\.(.*)": r"\1.conv_blocks.\2",
    r"(.*\.conv_blocks\.\d+)\.block\.(.*)": r"\1.res.\2",
}


class LlamaGen(VQGANFamily):
    """LlamaGen's VQ tokenizers: a codebook on the unit sphere."""

    name = "llamagen"
    label = "LlamaGen's VQ tokenizer"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return "encoder.conv_blocks.0.res.0.conv1.weight" in checkpoint.tensors

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """See `VQGANFamily.layout`."""
        return Layout(checkpoint, _RULES, coarsest_first=True)

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`."""
        said = _arguments(layout.checkpoint).get("codebook_l2_norm")
        if said is False:
            return codebook_record(layout), ()
        assumed = "cosine search: no configuration says codebook_l2_norm, which is on in all released checkpoints"
        return codebook_record(layout, metric="cosine"), () if said else (assumed,)

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `VQGANFamily.said`; there is no configuration file, but training leaves its options in the checkpoint."""
        return {"resolution": _arguments(checkpoint).get("image_size")}


def _arguments(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the options of the training that wrote the checkpoint; empty in a released one."""
    return settings_of(checkpoint.entries, "args")
