"""The contract of an encoder, a decoder and a discriminator: what the tokenizer and the trainer need of each."""

# Axes: B batch, C output channels, H x W image, h x w latent grid.

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, latent_dim, h, w)."""

    @property
    def compilable(self) -> list[nn.Module]:
        """The submodules that may be compiled and kept in the channels-last memory order; none unless stated."""
        return []


class Decoder(nn.Module, ABC):
    """Latents (B, code_dim, h, w) to (B, C, H, W), nominally in [-1, 1] where C is 3."""

    @property
    def compilable(self) -> list[nn.Module]:
        """The submodules that may be compiled and kept in the channels-last memory order; none unless stated.

        The last layer is not among them: an adaptive weight goes back through it twice, which a compiled graph refuses.
        """
        return []

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """The weight at which an adaptive weight compares gradients."""


class TrunkDecoder(Decoder):
    """A decoder of a trunk, which may be compiled, and a last convolution, which may not."""

    trunk: nn.Module
    conv_out: nn.Conv2d

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Decoder.compilable`."""
        return [self.trunk]

    @property
    def last_layer(self) -> Tensor:
        """See `Decoder.last_layer`."""
        return self.conv_out.weight


class Discriminator(nn.Module, ABC):
    """Images (B, 3, H, W) in [-1, 1] to logits, one an image or one a patch; high means real."""

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Least side of an image, pixels."""
