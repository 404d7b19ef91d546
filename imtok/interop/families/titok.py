"""TiTok, as bytedance/1d-tokenizer publishes it (Yu et al., 2024): images as a sequence of codes.

Sizes are those of the tensors; heads have 64 channels in every published size. The three first tokenizers (L-32, B-64,
S-128) have a MaskGIT-VQGAN's decoder behind theirs, the later ones (BL, SL) predict pixels. The configuration says
whether codes are compared at unit length; without it those of the first three are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.names import count, renamed, stage_widths
from imtok.interop.family import Conversion, Family
from imtok.interop.skeleton import skeleton
from imtok.networks.titok_config import TiTokConfig
from imtok.quantizer_config import VQConfig

_CODEBOOK, _PIXEL_CODEBOOK = "quantize.embedding.weight", "pixel_quantize.embedding.weight"
_HEAD_CHANNELS = 64
_NAMES = {
    r"quantizer\.codebook": _CODEBOOK,
    r"encoder\.latent_tokens": "latent_tokens",
    r"(encoder|decoder)\.transformer\.class_embedding": r"\1.class_embedding",
    r"(encoder|decoder)\.transformer\.positions": r"\1.positional_embedding",
    r"(encoder|decoder)\.transformer\.token_positions": r"\1.latent_token_positional_embedding",
    r"(encoder|decoder)\.transformer\.norm_in\.(.*)": r"\1.ln_pre.\2",
    r"(encoder|decoder)\.transformer\.norm_out\.(.*)": r"\1.ln_post.\2",
    r"(.*)\.transformer\.layers\.(.*)": r"\1.transformer.\2",
    r"(.*\.transformer\.\d+)\.norm([12])\.(.*)": r"\1.ln_\2.\3",
    r"(.*\.transformer\.\d+)\.qkv\.(weight|bias)": r"\1.attn.in_proj_\2",
    r"(.*\.transformer\.\d+)\.out\.(.*)": r"\1.attn.out_proj.\2",
    r"(.*\.transformer\.\d+)\.mlp\.0\.(.*)": r"\1.mlp.c_fc.\2",
    r"(.*\.transformer\.\d+)\.mlp\.2\.(.*)": r"\1.mlp.c_proj.\2",
    r"decoder\.embed\.(.*)": r"decoder.decoder_embed.\1",
    r"decoder\.head\.logits\.(.*)": r"decoder.ffn.\1",
    r"decoder\.head\.patches\.(.*)": r"decoder.ffn.0.\1",
    r"decoder\.head\.conv_out\.(.*)": r"decoder.conv_out.\1",
    r"decoder\.head\.codebook": _PIXEL_CODEBOOK,
    r"decoder\.head\.pixels\.(?:trunk\.)?(.*)": r"pixel_decoder.\1",
    r"(pixel_decoder\..*)\.shortcut\.(.*)": r"\1.nin_shortcut.\2",
    r"(pixel_decoder\.up\.\d+)\.resample\.conv\.(.*)": r"\1.upsample_conv.\2",
}


class TiTok(Family):
    """TiTok."""

    name = "titok"
    label = "TiTok (1d-tokenizer)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return {"latent_tokens", "encoder.latent_token_positional_embedding"} <= set(checkpoint.tensors)

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`; raises TokenizerError on tokenizers of this project that have no codes or need text."""
        _refuse_relatives(checkpoint)
        said = _said(checkpoint.settings)
        network = _network(checkpoint)
        assumed: list[str] = []
        unit = said.get("use_l2_norm")
        if not isinstance(unit, bool):
            unit = network.legacy
            assumed.append(f"codes {'are' if unit else 'are not'} compared at unit length, as in the published ones")
        num_codes, dim = checkpoint.tensors[_CODEBOOK].shape
        quantizer = VQConfig(
            dim=dim,
            num_codes=num_codes,
            metric="cosine" if unit else "euclidean",
            codebook_update="gradient",
            kmeans_start=False,
            revival_threshold=0.0,
        )
        config = TokenizerConfig(network=network, quantizer=quantizer, size=network.image_size)
        return Conversion(config, renamed(skeleton(config), _NAMES), {}, assumed=tuple(assumed))


def _refuse_relatives(checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors
    if "decoder.text_guidance_proj.weight" in tensors:
        raise TokenizerError(f"{checkpoint.path}: is a TA-TiTok, whose decoder reads a text beside the codes")
    if _CODEBOOK not in tensors:
        raise TokenizerError(
            f"{checkpoint.path}: has no {_CODEBOOK}; is it a TiTok with continuous latents (VAE)? Those have no codes"
        )
    if "decoder.ffn.2.weight" in tensors and _PIXEL_CODEBOOK not in tensors:
        raise TokenizerError(
            f"{checkpoint.path}: has no {_PIXEL_CODEBOOK}; it is from the first stage of training and draws no images"
        )


def _said(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of the tokenizer; empty where there are none."""
    found: Any = settings
    for name in ("model", "vq_model"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _network(checkpoint: Checkpoint) -> TiTokConfig:
    """Read the sizes from the tensors."""
    tensors = checkpoint.tensors
    needed = [f"{half}.{name}" for half in ("encoder", "decoder") for name in ("positional_embedding", "ln_pre.weight")]
    missing = [name for name in (*needed, "encoder.patch_embed.weight", "decoder.ffn.0.weight") if name not in tensors]
    if missing:
        raise TokenizerError(f"{checkpoint.path}: lacks {missing[0]}, so its sizes are not known; download it again")
    width, decoder_width = (tensors[f"{half}.ln_pre.weight"].shape[0] for half in ("encoder", "decoder"))
    sides = [math.isqrt(tensors[f"{half}.positional_embedding"].shape[0] - 1) for half in ("encoder", "decoder")]
    patch_size = tensors["encoder.patch_embed.weight"].shape[2]
    legacy = "decoder.ffn.2.weight" in tensors
    options: dict[str, Any] = {}
    if legacy:
        channels, blocks, _ = stage_widths(tensors, "pixel_decoder.up", "pixel_decoder.mid")
        codes, latents = tensors[_PIXEL_CODEBOOK].shape
        options = {"pixel_channels": channels, "pixel_blocks": blocks, "pixel_codes": codes, "pixel_latents": latents}
    return TiTokConfig(
        image_size=sides[0] * patch_size,
        patch_size=patch_size,
        tokens=tensors["latent_tokens"].shape[0],
        width=width,
        layers=count(tensors, "encoder.transformer"),
        heads=max(1, width // _HEAD_CHANNELS),
        decoder_patch_size=sides[0] * patch_size // max(1, sides[1]),
        decoder_width=decoder_width,
        decoder_layers=count(tensors, "decoder.transformer"),
        decoder_heads=max(1, decoder_width // _HEAD_CHANNELS),
        legacy=legacy,
        **options,
    )
