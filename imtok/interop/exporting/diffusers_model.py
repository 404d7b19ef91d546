"""Tokenizers as diffusers' `VQModel`, where the network is VQGAN's as that class has it, and the search by distance.

Codes of unit length are nearest by distance where their product is the greatest, so that a cosine codebook is written
at unit length and gives the same codes. A projected codebook is written as its projection.
"""

# Axes: B batch, H x W image, h x w latent grid, K codes, D latent channels.

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from imtok.interop.checkpoint import Checkpoint
from imtok.interop.exporting.format import Format, Layout, Runtime
from imtok.interop.families.diffusers_vq import DiffusersVQ
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import VQConfig
from imtok.tokenizer import Tokenizer


class DiffusersModel(Format):
    """`VQModel.from_pretrained(folder)` reads it, and so does `imtok import`."""

    name: ClassVar[str] = "diffusers"
    runtime: ClassVar[str] = "diffusers"
    packages: ClassVar[tuple[str, ...]] = ("diffusers",)

    def misfit(self, tokenizer: Tokenizer) -> str:
        """See `Format.misfit`."""
        network, quantizer = tokenizer.config.network, tokenizer.config.quantizer
        if not isinstance(network, VQGANConfig):
            return f"network.kind is {network.kind}, and a VQModel is VQGAN's network (vqgan)"
        if not isinstance(quantizer, VQConfig):
            return f"quantizer.kind is {quantizer.kind}, and a VQModel has a codebook (vq)"
        if tokenizer.config.decoder_output != "pixels":
            return f"decoder_output is {tokenizer.config.decoder_output}, and a VQModel gives pixels"
        if quantizer.metric == "dot" or quantizer.unit_lookup:
            option = "unit_lookup is true" if quantizer.unit_lookup else "metric is dot"
            return f"quantizer.{option}, and a VQModel searches by distance and looks up what it searched"
        for name, found, needed in _options(network):
            if found != needed:
                return f"network.{name} is {_shown(found)}, and a VQModel of this network has {_shown(needed)}"
        return ""

    def write(self, tokenizer: Tokenizer, folder: Path) -> Layout:
        """See `Format.write`."""
        from diffusers import VQModel

        settings = _settings(tokenizer)
        with torch.random.fork_rng(devices=[]):  # it draws weights first
            model: Any = VQModel(**settings)
        places = {name: value.shape for name, value in model.state_dict().items()}
        names = DiffusersVQ().layout(Checkpoint(folder, model.state_dict(), settings))
        ours = {f"{part}.{name}": value for part in ("encoder", "decoder") for name, value in _state(tokenizer, part)}
        ours["quantizer.codebook"] = _codebook(tokenizer)
        state = {names.published(name): value for name, value in ours.items()}
        # A 1 x 1 convolution of ours is a linear layer there.
        model.load_state_dict({name: value.reshape(places[name]) for name, value in state.items()})
        model.save_pretrained(folder)
        factor = tokenizer.downsample
        return Layout(("batch", 3, f"{factor}*h", f"{factor}*w"), ("batch", "h", "w"))

    def read(self, folder: Path) -> Runtime:
        """See `Format.read`."""
        return _Model(folder)


class _Model(Runtime):
    def __init__(self, folder: Path) -> None:
        from diffusers import VQModel

        self.model: Any = VQModel.from_pretrained(folder, low_cpu_mem_usage=False).eval()  # else it wants accelerate

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        latents = self.model.encode(images).latents  # (B, D, h, w)
        codes: Tensor = self.model.quantize(latents)[2][2]
        return codes.view(latents.shape[0], *latents.shape[2:])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        shape = (*codes.shape, self.model.config.vq_embed_dim)
        latents = self.model.quantize.get_codebook_entry(codes.flatten(), shape)
        images: Tensor = self.model.decode(latents, force_not_quantize=True).sample
        return images.clamp(-1, 1)


def _options(network: VQGANConfig) -> list[tuple[str, Any, Any]]:
    """Return name, value and the one value that VQModel has, of each option that it does not have."""
    attended = network.attention_stages
    decoded = network.decoder_attention_stages
    return [
        ("stem_channels", network.stem_width, network.channels[0]),
        ("middle_blocks", network.middle_blocks, 2),
        ("latent_channels", network.latent_channels, network.latent_channels or "a number"),
        ("decoder_channels", network.decoder_widths, network.channels),
        ("decoder_blocks", network.decoder_blocks or network.blocks + 1, network.blocks + 1),
        ("decoder_attention_stages", set(attended if decoded is None else decoded), set(attended)),
        ("norm_eps", network.norm_eps, 1e-6),
        ("last_kernel", network.last_kernel, 3),
        ("bias", network.bias, True),
        ("downsampling", network.downsampling, "strided"),
        ("upsampling", network.upsampling, "nearest"),
        ("shortcut", network.shortcut, "input"),
        ("adaptive_norm", network.adaptive_norm, False),
        ("spatial_norm", network.spatial_norm, False),
        ("image_range", network.image_range, "-1..1"),
    ]


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the configuration of VQModel; its decoder lists the coarsest stage first."""
    network = tokenizer.config.network
    assert isinstance(network, VQGANConfig)
    attended = [number in network.attention_stages for number in range(len(network.channels))]
    return {
        "block_out_channels": list(network.channels),
        "down_block_types": [f"{'Attn' * yes}DownEncoderBlock2D" for yes in attended],
        "up_block_types": [f"{'Attn' * yes}UpDecoderBlock2D" for yes in reversed(attended)],
        "layers_per_block": network.blocks,
        "latent_channels": network.latent_channels,
        "mid_block_add_attention": network.middle_attention,
        "norm_num_groups": network.norm_groups,
        "num_vq_embeddings": tokenizer.num_codes,
        "vq_embed_dim": tokenizer.quantizer.dim,
        "sample_size": tokenizer.config.size,
    }


def _state(tokenizer: Tokenizer, part: str) -> list[tuple[str, Tensor]]:
    return list(tokenizer.get_submodule(part).state_dict().items())


def _codebook(tokenizer: Tokenizer) -> Tensor:
    """Return the codes as the decoder reads them, (K, D)."""
    codes = torch.arange(tokenizer.num_codes, device=tokenizer.device).view(1, 1, -1)
    return tokenizer.quantizer.lookup(codes)[0, :, 0].T.contiguous()


def _shown(value: Any) -> str:
    if isinstance(value, set | tuple):
        return f"[{', '.join(map(str, sorted(value) if isinstance(value, set) else value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
