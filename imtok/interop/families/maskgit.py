"""MaskGIT's VQGAN (Chang et al., 2022), in the layout of bytedance/1d-tokenizer and huggingface/open-muse.

The network is VQGAN's without attention. Images are in [0, 1] inside it, the grid is halved by averages, and a block
that changes its width takes the shortcut from its own output, so that its input is dropped. The published file has no
configuration beside it; its shapes say all but the size of the images.
"""

from __future__ import annotations

from imtok.config import TokenizerConfig
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.names import network_without_attention, renamed
from imtok.interop.family import Conversion, Family
from imtok.interop.skeleton import skeleton
from imtok.quantizer_config import VQConfig

_CODEBOOK = "quantize.embedding.weight"
_SIZE = 256  # of the published checkpoint
_NAMES = {
    r"quantizer\.codebook": _CODEBOOK,
    r"(encoder|decoder)\.trunk\.(.*)": r"\1.\2",
    r"(.*)\.shortcut\.(.*)": r"\1.nin_shortcut.\2",
    r"(decoder\.up\.\d+)\.resample\.conv\.(.*)": r"\1.upsample_conv.\2",
}


class MaskGIT(Family):
    """MaskGIT's VQGAN."""

    name = "maskgit"
    label = "MaskGIT-VQGAN (1d-tokenizer, open-muse)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`: no other family has a list `mid` and a lone convolution after its upsampling."""
        names = checkpoint.tensors
        return "encoder.mid.0.conv1.weight" in names and "decoder.up.1.upsample_conv.weight" in names

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`."""
        tensors = checkpoint.tensors
        num_codes, dim = tensors[_CODEBOOK].shape
        network = network_without_attention(
            tensors,
            "mid",
            downsampling="average",
            shortcut="output",
            image_range="0..1",
        )
        quantizer = VQConfig(
            dim=dim, num_codes=num_codes, codebook_update="gradient", kmeans_start=False, revival_threshold=0.0
        )
        size = checkpoint.settings.get("resolution", _SIZE)
        config = TokenizerConfig(network=network, quantizer=quantizer, size=size)
        assumed = () if "resolution" in checkpoint.settings else (f"images of {_SIZE} x {_SIZE}, as published",)
        return Conversion(config, renamed(skeleton(config), _NAMES), {}, assumed=assumed)
