"""Networks: the convolutional encoder and decoder, and the discriminators of adversarial training."""

from imtok.networks.autoencoder import Decoder, Encoder
from imtok.networks.maskbit import MaskBitDiscriminator
from imtok.networks.patchgan import PatchDiscriminator
from imtok.networks.stylegan import StyleGANDiscriminator

__all__ = ["Decoder", "Encoder", "MaskBitDiscriminator", "PatchDiscriminator", "StyleGANDiscriminator"]
