"""Emu3's vision tokenizer as transformers and BAAI publish it, for still images: an image is a clip of equal frames.

transformers has it by itself (`Emu3VQVAE`) or inside the whole model (`model.vqmodel.`), with linear layers for its
attention; BAAI/Emu3-VisionTokenizer has 1x1 convolutions there, under taming's names. Sizes are those of the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.names import count
from imtok.interop.family import Conversion, Family
from imtok.networks.emu3_config import Emu3Config
from imtok.quantizer_config import VQConfig

_MARK = "encoder.time_conv.0.conv.conv.weight"  # layers over time are Emu3's alone
_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
_CODEBOOK = "quantize.embedding.weight"
_COUNTER = "num_batches_tracked"

# Published names of both layouts -> ours, one after the other.
_NAMES = [
    (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
    (r"^quant_conv\.", "encoder.quant_conv."),
    (r"^post_quant_conv\.", "decoder.post_quant_conv."),
    (r"^(encoder|decoder)\.(?:down_block\.|up_block\.)?(down|up)\.", r"\1.spatial.trunk.\2."),
    (r"^(encoder|decoder)\.(?:middle_block|mid)\.", r"\1.spatial.trunk.mid."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.spatial.trunk.conv_in."),
    (r"^(encoder|decoder)\.(norm_out|conv_out)\.", r"\1.spatial.\2."),
    (r"\.time_conv\.(\d+)\.conv\.", r".time_conv.\1."),
    (r"\.mid\.block_1\.", ".mid.0."),
    (r"\.mid\.attn_1\.", ".mid.1."),
    (r"\.mid\.attn_norm\.", ".mid.1.norm."),
    (r"\.mid\.block_2\.", ".mid.2."),
    (r"\.attn_norms\.(\d+)\.", r".attn.\1.norm."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.out_proj\.", ".proj_out."),
    (r"\.(?:down|up)sample\.", ".resample."),
    (r"\.nin_shortcut\.", ".shortcut."),
]


class Emu3(Family):
    """Emu3's vision tokenizer."""

    name: ClassVar[str] = "emu3"
    label: ClassVar[str] = "Emu3's vision tokenizer (transformers' Emu3VQVAE, BAAI/Emu3-VisionTokenizer)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return _MARK in checkpoint.tensors

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`; raises TokenizerError on a key that the sizes need and on options not published."""
        tensors = checkpoint.tensors
        used = {our_name(key): key for key in tensors if key.startswith(_PARTS) and not key.endswith(_COUNTER)}
        return Conversion(
            TokenizerConfig(network=_network(checkpoint, used), quantizer=_quantizer(checkpoint), size=512),
            published=used,
            made={},
            skipped=tuple(key for key in tensors if not key.startswith(_PARTS)),  # the language model around it
            assumed=(
                "images in [-1, 1]: the published preprocessor subtracts 0.5 and divides by 0.5",
                "size 512: the tokenizer takes any, and its preprocessor enlarges to 512 x 512 pixels or more",
            ),
        )


def our_name(key: str) -> str:
    """Return our name of a published tensor."""
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def _network(checkpoint: Checkpoint, used: Mapping[str, str]) -> Emu3Config:
    """Read the sizes from the tensors; `used` has their published names by ours."""

    def width(name: str) -> int:
        if name not in used:
            raise TokenizerError(
                f"{checkpoint.path}: has no tensor for {name}; its keys are no whole tokenizer of Emu3"
            )
        return checkpoint.tensors[used[name]].shape[0]

    heads = checkpoint.settings.get("num_attention_heads", 1)
    if heads != 1:
        raise TokenizerError(f"{checkpoint.path}: num_attention_heads is {heads}; Emu3 is published with 1")
    down = "encoder.spatial.trunk.down"
    channels = tuple(width(f"{down}.{stage}.block.0.conv1.weight") for stage in range(count(used, down)))
    stem = width("encoder.spatial.trunk.conv_in.weight")
    return Emu3Config(
        channels=channels,
        stem_channels=None if stem == channels[0] else stem,
        blocks=count(used, f"{down}.0.block"),
        attention_stages=tuple(n for n in range(len(channels)) if f"{down}.{n}.attn.0.q.weight" in used),
        latent_channels=width("encoder.spatial.conv_out.weight"),
        time_layers=count(used, "encoder.time_conv"),
    )


def _quantizer(checkpoint: Checkpoint) -> VQConfig:
    if _CODEBOOK not in checkpoint.tensors:
        raise TokenizerError(f"{checkpoint.path}: {_CODEBOOK} is missing; the file holds no codebook")
    num_codes, dim = checkpoint.tensors[_CODEBOOK].shape
    return VQConfig(dim=dim, num_codes=num_codes, codebook_update="gradient", kmeans_start=False, revival_threshold=0.0)
