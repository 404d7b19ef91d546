"""Emu3's vision tokenizer as transformers and BAAI publish it, for still images: an image is a clip of equal frames.

transformers has it by itself (`Emu3VQVAE`) or inside the whole model (`model.vqmodel.`), with linear layers for its
attention; BAAI/Emu3-VisionTokenizer has 1x1 convolutions there, under taming's names. Sizes are those of the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.family import Conversion, Family
from imtok.networks.emu3_config import Emu3Config
from imtok.quantizer_config import VQConfig

_MARK = "encoder.time_conv.0.conv.conv.weight"  # layers over time are Emu3's alone
_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")
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
        return any(key.endswith(_MARK) for key in checkpoint.tensors)

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`; raises TokenizerError on a key that the sizes need and on options not published."""
        prefix = next(key for key in checkpoint.tensors if key.endswith(_MARK)).removesuffix(_MARK)
        tensors = {
            key.removeprefix(prefix): value
            for key, value in checkpoint.tensors.items()
            if key.startswith(tuple(prefix + part for part in _PARTS))
        }
        counters = [key for key in tensors if key.endswith(_COUNTER)]
        used = {our_name(key): key for key in tensors if key not in counters}
        linear = {ours: key for ours, key in used.items() if key.endswith("_proj.weight") and tensors[key].ndim == 2}
        return Conversion(
            TokenizerConfig(
                network=_network({ours: tensors[key] for ours, key in used.items()}, checkpoint),
                quantizer=_quantizer(tensors, checkpoint),
                size=512,
            ),
            published={ours: prefix + key for ours, key in used.items() if ours not in linear},
            made={
                **{ours: tensors[key][:, :, None, None] for ours, key in linear.items()},
                "quantizer.started": torch.ones(()),
            },
            skipped=(
                *(prefix + key for key in counters),
                *(key for key in checkpoint.tensors if key.removeprefix(prefix) not in tensors),
            ),
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


def _network(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> Emu3Config:
    """Read the sizes from tensors under our names."""
    heads = checkpoint.settings.get("num_attention_heads", 1)
    if heads != 1:
        raise TokenizerError(f"{checkpoint.path}: num_attention_heads is {heads}; Emu3 is published with 1")
    stages = 1 + max(_numbers(tensors, r"encoder\.spatial\.trunk\.down\.(\d+)\."))
    first = "encoder.spatial.trunk.down.{}.block.0.conv1.weight"
    channels = tuple(tensors[first.format(stage)].shape[0] for stage in range(stages))
    stem = tensors["encoder.spatial.trunk.conv_in.weight"].shape[0]
    return Emu3Config(
        channels=channels,
        stem_channels=None if stem == channels[0] else stem,
        blocks=len(_numbers(tensors, r"encoder\.spatial\.trunk\.down\.0\.block\.(\d+)\.")),
        attention_stages=tuple(sorted(_numbers(tensors, r"encoder\.spatial\.trunk\.down\.(\d+)\.attn\."))),
        latent_channels=tensors["encoder.spatial.conv_out.weight"].shape[0],
        time_layers=len(_numbers(tensors, r"encoder\.time_conv\.(\d+)\.")),
    )


def _quantizer(tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> VQConfig:
    codebook = tensors.get("quantize.embedding.weight")
    if codebook is None:
        raise TokenizerError(f"{checkpoint.path}: quantize.embedding.weight is missing; the file holds no codebook")
    num_codes, dim = codebook.shape
    return VQConfig(dim=dim, num_codes=num_codes, codebook_update="gradient", kmeans_start=False, revival_threshold=0.0)


def _numbers(tensors: Mapping[str, Tensor], pattern: str) -> set[int]:
    """Return the numbers that the names have at the group of a pattern."""
    return {int(match[1]) for match in map(re.compile(pattern).match, tensors) if match}
