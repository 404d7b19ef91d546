"""Open-MAGVIT2's tokenizers without a look-up (Luo et al., 2024), in the layout of TencentARC/SEED-Voken.

A code's bit i is the sign of channel i, the first channel being the least significant bit. There is no convolution
around the quantizer, and the decoder scales each stage by statistics of the codes. The Lightning checkpoint has an
exponential moving average beside the weights, which the authors' evaluation takes.
"""

from __future__ import annotations

from imtok.config import TokenizerConfig
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.names import network_without_attention, renamed
from imtok.interop.family import Conversion, Family
from imtok.interop.skeleton import skeleton
from imtok.quantizer_config import LFQConfig

_SIZE = 256  # of evaluation in the published configurations
_NAMES = {
    r"(encoder|decoder)\.trunk\.(.*)": r"\1.\2",
    r"(encoder|decoder)\.mid\.(.*)": r"\1.mid_block.\2",
    r"(.*)\.shortcut\.(.*)": r"\1.nin_shortcut.\2",
    r"(encoder\.down\.\d+)\.resample\.conv\.(.*)": r"\1.downsample.\2",
    r"(decoder\.up\.\d+)\.resample\.conv\.(.*)": r"\1.upsample.conv1.\2",
    r"decoder\.up\.(\d+)\.adaptive\.(.*)": r"decoder.adaptive.\1.\2",
}


class OpenMAGVIT2(Family):
    """Open-MAGVIT2's image tokenizers."""

    name = "open-magvit2"
    label = "Open-MAGVIT2 (LFQ)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`: no other family has an adaptive group norm fed by the codes."""
        return {"encoder.mid_block.0.conv1.weight", "decoder.adaptive.0.gamma.weight"} <= set(checkpoint.tensors)

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`."""
        tensors = checkpoint.tensors
        dim = tensors["encoder.conv_out.weight"].shape[0]
        network = network_without_attention(
            tensors,
            "mid_block",
            downsampling="strided_symmetric",
            upsampling="depth_to_space",
            adaptive_norm=True,
        )
        quantizer = LFQConfig(dim=dim, first_bit="least significant", temperature=0.01)
        size, assumed = _size(checkpoint)
        config = TokenizerConfig(network=network, quantizer=quantizer, size=size)
        return Conversion(config, renamed(skeleton(config), _NAMES), {}, assumed=assumed)


def _size(checkpoint: Checkpoint) -> tuple[int, tuple[str, ...]]:
    """Return the size of images in evaluation, which is not `resolution`: that of f16 says 128 beside 256."""
    data = checkpoint.settings.get("data")
    for part in ("init_args", "validation", "params", "config", "size"):
        data = data.get(part) if isinstance(data, dict) else None
    return (data, ()) if isinstance(data, int) else (_SIZE, (f"images of {_SIZE} x {_SIZE}, as published",))
