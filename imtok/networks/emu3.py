"""The encoder and decoder of Emu3's vision tokenizer (Wang et al., 2024, section 2.2), for still images.

Emu3 tokenizes video: MoVQ's network for each frame (Zheng et al., 2022), then layers over time. An image is a clip of
equal frames, of which one frame of codes remains; the first decoded frame is the image. Layers over time are causal,
that is they see no later frame. So the encoder computes its frame once, and the decoder the first frame alone. The
weights are all of those published, so that nothing is lost on the way to video. Facts from transformers'
`modeling_emu3.py`.
"""

# Axes: B batch, C channels, T frames, H x W image, h x w latent grid with h = H / downsample.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtok.networks.base import Decoder, Encoder
from imtok.networks.emu3_config import Emu3Config
from imtok.networks.norms import in_fast_order
from imtok.networks.vqgan import VQGANDecoder, VQGANEncoder


class CausalConv(nn.Module):
    """Convolution over time and space that sees no later frame: (B, C, T, h, w) -> (B, C', T', h, w)."""

    def __init__(self, channels: int, out_channels: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        """`kernel` is of time, height and width, at most four frames; `stride` is of time."""
        super().__init__()
        time, height, width = kernel
        self.before = 2  # published for the kernels of 3 and of 4 frames, the latter with stride 2
        self.conv = nn.Conv3d(
            channels, out_channels, (time, height, width), stride=(stride, 1, 1), padding=(0, height // 2, width // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, h, w) -> (B, C', T', h, w); two frames of zeros come before the first one."""
        out: Tensor = self.conv(F.pad(x, (0, 0, 0, 0, self.before, 0)))
        return out


class FixedNorm(nn.Module):
    """Batch norm by fixed statistics, in training too: transformers keeps Emu3's tokenizer in evaluation mode.

    So an image's codes and reconstruction never depend on its batch, and a frozen encoder stays as it is.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, h, w) -> the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class TimeBlock(nn.Module):
    """Norm, SiLU, convolution over time and space, twice, added to the input: (B, C, T, h, w) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = FixedNorm(channels)
        self.conv1 = CausalConv(channels, channels, (3, 3, 3))
        self.norm2 = FixedNorm(channels)
        self.conv2 = CausalConv(channels, channels, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, h, w) -> (B, C, T, h, w)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        out: Tensor = x + self.conv2(F.silu(self.norm2(hidden)))
        return out


class Emu3Encoder(Encoder):
    """Images to latents of `dim` channels: the frame's network, then the layers over the equal frames of a clip."""

    def __init__(self, dim: int, config: Emu3Config) -> None:
        super().__init__()
        channels = config.latent_channels
        self.frames = 2**config.time_layers
        self.spatial = VQGANEncoder(channels, config.spatial)
        self.time_conv = nn.ModuleList(
            CausalConv(channels, channels, (4, 3, 3), stride=2) for _ in range(config.time_layers)
        )
        self.time_res_stack = nn.Sequential(*(TimeBlock(channels) for _ in range(config.blocks)))
        self.quant_conv = CausalConv(channels, dim, (3, 1, 1))

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Encoder.compilable`."""
        return self.spatial.compilable

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [-1, 1] to latents (B, dim, h, w)."""
        frame = self.spatial(images)
        clip = frame.unsqueeze(2).expand(-1, -1, self.frames, -1, -1)
        for layer in self.time_conv:
            clip = F.silu(layer(clip))
        latents: Tensor = self.quant_conv(self.time_res_stack(clip)).squeeze(2)
        return latents


class Emu3Decoder(Decoder):
    """Codes to the first frame of their clip; every norm of the frame's network reads the codes again."""

    def __init__(self, config: Emu3Config, output_channels: int = 3) -> None:
        super().__init__()
        channels = config.latent_channels
        self.post_quant_conv = CausalConv(channels, channels, (3, 1, 1))
        self.time_res_stack = nn.Sequential(*(TimeBlock(channels) for _ in range(config.blocks)))
        self.time_conv = nn.ModuleList(CausalConv(channels, channels, (3, 3, 3)) for _ in range(config.time_layers))
        self.spatial = VQGANDecoder(channels, config.spatial, output_channels)

    @property
    def compilable(self) -> list[nn.Module]:
        """See `Decoder.compilable`."""
        return self.spatial.compilable

    @property
    def last_layer(self) -> Tensor:
        """See `Decoder.last_layer`."""
        return self.spatial.last_layer

    def forward(self, latents: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) to (B, output_channels, H, W), of three channels nominally in [-1, 1]."""
        codes = in_fast_order(latents).unsqueeze(2)  # (B, C, 1, h, w)
        both = self.time_res_stack(torch.cat([self.post_quant_conv(codes), codes]))
        for layer in self.time_conv:  # each doubles the frames by repeating them; the first one sees itself alone
            both = F.silu(layer(both))
        hidden, codes = both.squeeze(2).chunk(2)
        return self.spatial.decode(hidden, codes)
