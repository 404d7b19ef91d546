"""Networks: encoders and decoders, and the discriminators of adversarial training.

Names are handed out lazily, since the configuration records in this package must be importable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.networks.base import Decoder, Discriminator, Encoder
    from imtok.networks.conv import ConvDecoder, ConvEncoder
    from imtok.networks.dvae import DVAEDecoder, DVAEEncoder
    from imtok.networks.emu3 import Emu3Decoder, Emu3Encoder
    from imtok.networks.maskbit import MaskBitDiscriminator
    from imtok.networks.patchgan import PatchDiscriminator
    from imtok.networks.stylegan import StyleGANDiscriminator
    from imtok.networks.titok import TiTokDecoder, TiTokEncoder
    from imtok.networks.vqgan import VQGANDecoder, VQGANEncoder

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "DVAEDecoder",
    "DVAEEncoder",
    "Decoder",
    "Discriminator",
    "Emu3Decoder",
    "Emu3Encoder",
    "Encoder",
    "MaskBitDiscriminator",
    "PatchDiscriminator",
    "StyleGANDiscriminator",
    "TiTokDecoder",
    "TiTokEncoder",
    "VQGANDecoder",
    "VQGANEncoder",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TiTokDecoder": "imtok.networks.titok",
        "TiTokEncoder": "imtok.networks.titok",
        "Emu3Decoder": "imtok.networks.emu3",
        "Emu3Encoder": "imtok.networks.emu3",
        "DVAEDecoder": "imtok.networks.dvae",
        "DVAEEncoder": "imtok.networks.dvae",
        "ConvDecoder": "imtok.networks.conv",
        "ConvEncoder": "imtok.networks.conv",
        "Decoder": "imtok.networks.base",
        "Discriminator": "imtok.networks.base",
        "Encoder": "imtok.networks.base",
        "MaskBitDiscriminator": "imtok.networks.maskbit",
        "PatchDiscriminator": "imtok.networks.patchgan",
        "StyleGANDiscriminator": "imtok.networks.stylegan",
        "VQGANDecoder": "imtok.networks.vqgan",
        "VQGANEncoder": "imtok.networks.vqgan",
    },
)
