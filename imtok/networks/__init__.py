"""Networks: the convolutional encoder and decoder."""

from imtok.networks.autoencoder import Decoder, Encoder

__all__ = ["Decoder", "Encoder"]
