"""TiTok's encoder and decoder (Yu et al., 2024, "An Image is Worth 32 Tokens for Reconstruction and Generation").

A transformer reads the patches of an image and some latent tokens, whose outputs alone become codes: a sequence, and no
grid. The decoder's transformer reads the codes and a mask token for each patch, and draws the image from the outputs
of the mask tokens. Facts from bytedance/1d-tokenizer (`modeling/titok.py`, `modeling/modules/blocks.py`).
"""

# Axes: B batch, H x W image, N patches, n tokens of an image, L positions, C channels.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Decoder, Encoder
from imtok.networks.titok_config import TiTokConfig
from imtok.networks.vqgan import VQGANDecoder


class TransformerLayer(nn.Module):
    """Self-attention, then two linear layers, each after a layer norm and added to its input: (B, L, C) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, L, C / heads)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """A class token, one token for each patch, and one for each code; all see each other."""

    def __init__(self, width: int, layers: int, heads: int, patches: int, tokens: int) -> None:
        super().__init__()
        self.patches = patches
        self.class_embedding = _noise(1, width)
        self.positions = _noise(patches + 1, width)
        self.token_positions = _noise(tokens, width)
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads) for _ in range(layers)))
        self.norm_out = nn.LayerNorm(width)

    def forward(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (B, N, C), tokens (B, n, C) -> the outputs of both, not yet normalised."""
        first = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        x = torch.cat([torch.cat([first, patches], dim=1) + self.positions, tokens + self.token_positions], dim=1)
        out = self.layers(self.norm_in(x))[:, 1:]
        return out[:, : self.patches], out[:, self.patches :]


class TiTokEncoder(Encoder):
    """Images of one size to a sequence of latents (B, dim, 1, n)."""

    def __init__(self, dim: int, config: TiTokConfig) -> None:
        super().__init__()
        self.legacy = config.legacy
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.latent_tokens = _noise(config.tokens, config.width)
        self.transformer = Transformer(config.width, config.layers, config.heads, patches, config.tokens)
        self.conv_out = nn.Conv2d(config.width, dim, 1)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Encoder.compilable`."""
        return [self.transformer.layers]

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to latents (B, dim, 1, n)."""
        patches = self.patch_embed(images / 2 + 0.5).flatten(2).transpose(1, 2)
        _, tokens = self.transformer(patches, self.latent_tokens.expand(len(images), -1, -1))
        tokens = self.transformer.norm_out(tokens)  # (B, n, C)
        batch, count, width = tokens.shape
        # The legacy form reads them as if they lay channel by channel, which mixes tokens and channels.
        rows = tokens.reshape(batch, width, count) if self.legacy else tokens.transpose(1, 2)
        latents: Tensor = self.conv_out(rows.unsqueeze(2))
        return latents


class TiTokDecoder(Decoder):
    """A sequence of codes (B, dim, 1, n) to images of one size."""

    def __init__(self, dim: int, config: TiTokConfig, output_channels: int = 3) -> None:
        super().__init__()
        self.side = config.image_size // config.decoder_patch_size
        width = config.decoder_width
        self.embed = nn.Linear(dim, width)
        self.mask_token = _noise(1, 1, width)
        self.transformer = Transformer(width, config.decoder_layers, config.decoder_heads, self.side**2, config.tokens)
        self.head: CodeHead | PixelHead = (CodeHead if config.legacy else PixelHead)(config, output_channels)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Decoder.compilable`."""
        return [self.transformer.layers, *self.head.compilable]

    @property
    def last_layer(self) -> Tensor:
        """See `Decoder.last_layer`."""
        return self.head.last_layer

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents (B, dim, 1, n) to (B, output_channels, H, W), of three channels nominally in [-1, 1]."""
        tokens = self.embed(latents.squeeze(2).transpose(1, 2))
        masks = self.mask_token.expand(len(tokens), self.side**2, -1)
        patches, _ = self.transformer(masks.to(tokens.dtype), tokens)
        features = self.transformer.norm_out(patches).transpose(1, 2).unflatten(2, (self.side, self.side))
        images: Tensor = self.head(features)
        return images


class CodeHead(nn.Module):
    """Predicts the codes of a MaskGIT-VQGAN at each patch, whose decoder draws their mean: (B, C, h, w) -> images."""

    def __init__(self, config: TiTokConfig, output_channels: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.logits = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, config.pixel_codes, 1)
        )
        self.codebook = nn.Parameter(torch.randn(config.pixel_codes, config.pixel_latents))
        self.pixels = VQGANDecoder(config.pixel_latents, config.pixels, output_channels)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Decoder.compilable`."""
        return self.pixels.compilable

    @property
    def last_layer(self) -> Tensor:
        """See `Decoder.last_layer`."""
        return self.pixels.last_layer

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, output_channels, H, W)."""
        shares = self.logits(features).softmax(dim=1)
        images: Tensor = self.pixels(torch.einsum("bkhw,kd->bdhw", shares, self.codebook))
        return images


class PixelHead(nn.Module):
    """Predicts the pixels of each patch, then a convolution over them: (B, C, h, w) -> images."""

    def __init__(self, config: TiTokConfig, output_channels: int) -> None:
        super().__init__()
        self.patch_size, self.is_image = config.decoder_patch_size, output_channels == 3
        self.patches = nn.Conv2d(config.decoder_width, 3 * config.decoder_patch_size**2, 1)
        self.conv_out = nn.Conv2d(3, output_channels, 3, padding=1)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Decoder.compilable`."""
        return [self.patches]

    @property
    def last_layer(self) -> Tensor:
        """See `Decoder.last_layer`."""
        return self.conv_out.weight

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, output_channels, H, W); a patch's channels are rows, columns and colours, in order."""
        batch, _, height, width = features.shape
        size = self.patch_size
        patches = self.patches(features).reshape(batch, size, size, 3, height, width).permute(0, 3, 4, 1, 5, 2)
        images: Tensor = self.conv_out(patches.reshape(batch, 3, height * size, width * size))
        return images * 2 - 1 if self.is_image else images


def _noise(*shape: int) -> nn.Parameter:
    """Return a parameter of published scale: normal with variance 1 / width."""
    return nn.Parameter(torch.randn(*shape) * shape[-1] ** -0.5)
