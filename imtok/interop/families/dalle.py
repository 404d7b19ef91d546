"""DALL-E's discrete VAE, as openai/DALL-E publishes it (Ramesh et al., 2021): one module for each direction.

Tensors are expected as `encoder.blocks...` and `decoder.blocks...`. There is no configuration file; sizes are those of
the tensors. The encoder's last 1x1 convolution gives the logits of the codes and belongs to the quantizer here. The
decoder's first 1x1 convolution reads a one-hot code: a column of its weight, plus its bias, is a row of the codebook.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.family import Conversion, Family
from imtok.networks.dvae_config import DVAEConfig
from imtok.quantizer_config import GumbelConfig

_LOGITS, _ONE_HOT = "encoder.blocks.output.conv", "decoder.blocks.input"
_BLOCK = re.compile(r"(?:(encoder|decoder)\.)?blocks\.group_1\.block_(\d+)\.res_path\.conv_1\.w")
# Published part of a name -> ours, in this order.
_NAMES = {
    "encoder.blocks.output.conv": "quantizer.projection",
    "blocks.": "trunk.",
    "trunk.output.conv": "conv_out",
    "res_path": "path",
    "id_path": "shortcut",
}


class DALLE(Family):
    """DALL-E's discrete VAE."""

    name: ClassVar[str] = "dalle"
    label: ClassVar[str] = "DALL-E's discrete VAE (openai/DALL-E)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`; one of the two modules is enough, so that the other can be named as missing."""
        return any(_BLOCK.fullmatch(key) for key in checkpoint.tensors)

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`; raises TokenizerError where encoder or decoder is missing."""
        tensors = checkpoint.tensors
        for key in (f"{_LOGITS}.w", f"{_ONE_HOT}.w"):
            if key not in tensors:
                part = key.partition(".")[0]
                raise TokenizerError(
                    f"{checkpoint.path}: holds no {part} ({key} is missing); give a folder with DALL-E's two modules, "
                    "encoder.pkl and decoder.pkl"
                )
        width = tensors["encoder.blocks.input.w"].shape[0]
        num_codes, features = tensors[f"{_LOGITS}.w"].shape[:2]
        code_dim = tensors[f"{_ONE_HOT}.w"].shape[0]
        blocks = sum(match is not None and match[1] == "encoder" for match in map(_BLOCK.fullmatch, tensors))
        config = TokenizerConfig(
            network=DVAEConfig(width=width, blocks=blocks, projection=False),
            quantizer=GumbelConfig(dim=features, num_codes=num_codes, code_dim=code_dim, straight_through=False),
            size=256,
            decoder_output="logit_laplace",
        )
        taken = [key for key in tensors if key.startswith(("encoder.", "decoder.")) and not key.startswith(_ONE_HOT)]
        return Conversion(
            config,
            published={our_name(key): key for key in taken},
            made={
                "quantizer.codebook": _codebook(tensors[f"{_ONE_HOT}.w"], tensors[f"{_ONE_HOT}.b"]),
                "quantizer.progress": torch.ones(()),  # the temperature has fallen to its end
            },
            read=(f"{_ONE_HOT}.w", f"{_ONE_HOT}.b"),
            assumed=("size 256: the checkpoint does not say it, and DALL-E's images are of 256 pixels a side",),
        )


def our_name(key: str) -> str:
    """Return our name of a published tensor that is used as it is."""
    for published, ours in _NAMES.items():
        key = key.replace(published, ours)
    module, _, kind = key.rpartition(".")
    return f"{module}.{({'w': 'weight', 'b': 'bias'}).get(kind, kind)}"


def _codebook(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the codebook (K, E) of a 1x1 convolution of one-hot codes, its weight (E, K, 1, 1) and bias (E,)."""
    return (weight.flatten(1) + bias.unsqueeze(1)).float().T.contiguous()
