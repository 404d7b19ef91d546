"""VQGAN's encoder and decoder (Esser et al., 2021, "Taming Transformers"), the network of most published tokenizers.

Stages of residual blocks, the grid halved between them, self-attention where it is small, and 1 x 1 convolutions around
the quantizer. `VQGANConfig` has the options by which its descendants differ.
"""

# Axes: B batch, H x W image, h x w latent grid with h = H / downsample.

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Encoder, TrunkDecoder
from imtok.networks.norms import in_fast_order
from imtok.networks.vqgan_blocks import AdaptiveNorm, Middle, Stage, downsampling, group_norm, norm, normed, upsampling
from imtok.networks.vqgan_config import VQGANConfig


class VQGANEncoder(Encoder):
    """Images to latents of `dim` channels; the stages from the finest to the coarsest."""

    def __init__(self, dim: int, config: VQGANConfig) -> None:
        super().__init__()
        self.unit_range = config.image_range == "0..1"
        stages, width, last = [], config.stem_width, len(config.channels) - 1
        for number, channels in enumerate(config.channels):
            resample = downsampling(channels, config) if number < last else None
            widths = [width, *[channels] * config.blocks]
            stages.append(Stage(widths, config, attention=number in config.attention_stages, resample=resample))
            width = channels
        self.trunk = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv_in=nn.Conv2d(3, config.stem_width, 3, padding=1, bias=config.bias),
                down=nn.Sequential(*stages),
                mid=Middle(width, config),
            )
        )
        self.norm_out = group_norm(width, config)
        self.conv_out = nn.Conv2d(
            width, config.latent_channels or dim, config.last_kernel, padding=config.last_kernel // 2
        )
        self.quant_conv = nn.Conv2d(config.latent_channels, dim, 1) if config.latent_channels else None

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Encoder.compilable`."""
        return [self.trunk]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to latents (B, dim, h, w)."""
        images = images / 2 + 0.5 if self.unit_range else images
        latents: Tensor = self.conv_out(F.silu(self.norm_out(self.trunk(images))))
        return latents if self.quant_conv is None else self.quant_conv(latents)


class VQGANDecoder(TrunkDecoder):
    """Latents of `dim` channels to images, or to more channels for each pixel; the encoder's stages in reverse."""

    def __init__(self, dim: int, config: VQGANConfig, output_channels: int = 3) -> None:
        super().__init__()
        # More channels than a colour's are no pixels, and have no range.
        self.unit_range = config.image_range == "0..1" and output_channels == 3
        channels = config.latent_channels or dim
        self.post_quant_conv = nn.Conv2d(dim, config.latent_channels, 1) if config.latent_channels else None
        code_channels = dim if config.spatial_norm else None
        self.trunk = DecoderTrunk(channels, config, code_channels)
        width = config.decoder_widths[0]
        self.norm_out = norm(width, config, code_channels)
        self.conv_out = nn.Conv2d(width, output_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents (B, dim, h, w) to (B, output_channels, H, W), of three channels nominally in [-1, 1]."""
        codes = in_fast_order(latents)
        return self.decode(codes if self.post_quant_conv is None else self.post_quant_conv(codes), codes)

    def decode(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Decode (B, `latent_channels`, h, w) as `forward` does; a spatial norm reads codes (B, dim, h, w)."""
        images: Tensor = self.conv_out(F.silu(normed(self.norm_out, self.trunk(latents, codes), codes)))
        return images * 2 - 1 if self.unit_range else images


class DecoderTrunk(nn.Module):
    """All layers of the decoder but the last; an adaptive norm reads the latents again in every stage.

    `up` has its stages from the finest to the coarsest, as the published networks number them.
    """

    def __init__(self, channels: int, config: VQGANConfig, code_channels: int | None = None) -> None:
        super().__init__()
        self.reads_codes = code_channels is not None
        widths = config.decoder_widths
        blocks = config.decoder_blocks or config.blocks + 1
        attended = config.attention_stages
        if config.decoder_attention_stages is not None:
            attended = config.decoder_attention_stages
        self.conv_in = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], config, code_channels)
        self.up = nn.ModuleList()
        for number, width in enumerate(widths):
            before = widths[min(number + 1, len(widths) - 1)]
            self.up.append(
                Stage(
                    [before, *[width] * blocks],
                    config,
                    attention=number in attended,
                    resample=upsampling(width, config) if number > 0 else None,
                    adaptive=AdaptiveNorm(before, channels, config) if config.adaptive_norm else None,
                    code_channels=code_channels,
                )
            )

    def forward(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Latents (B, E, h, w), and codes (B, D, h, w) for a spatial norm -> (B, C, H, W)."""
        read = codes if self.reads_codes else latents
        hidden: Tensor = self.mid(self.conv_in(latents), read)
        for stage in reversed(self.up):
            hidden = stage(hidden, read)
        return hidden
