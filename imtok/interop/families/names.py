"""Names and shapes of published tensors, and networks read from them, as several families need them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from imtok.errors import TokenizerError
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizers.base import FLAGS


def renamed(ours: Iterable[str], rules: Mapping[str, str]) -> dict[str, str]:
    """Return the published name of each of our tensors: every rule that matches a whole name rewrites it, in order.

    Flags, which no other project has, are left out.
    """
    compiled = [(re.compile(pattern), template) for pattern, template in rules.items()]
    published = {}
    for name in ours:
        if name.rpartition(".")[2] in FLAGS:
            continue
        theirs = name
        for pattern, template in compiled:
            if match := pattern.fullmatch(theirs):
                theirs = match.expand(template)
        published[name] = theirs
    return published


def count(names: Iterable[str], prefix: str) -> int:
    """Count the numbered parts `prefix.0`, `prefix.1`, ... that have tensors."""
    numbers = {name[len(prefix) + 1 :].partition(".")[0] for name in names if name.startswith(f"{prefix}.")}
    return next(number for number in range(len(numbers) + 1) if str(number) not in numbers)


def stage_widths(tensors: Mapping[str, Tensor], stages: str, middle: str) -> tuple[tuple[int, ...], int, int]:
    """Return the width of each stage, and how many residual blocks a stage and the middle have.

    Raises TokenizerError, which names the tensor, where there is no such stage.
    """
    number, blocks = count(tensors, stages), count(tensors, f"{stages}.0.block")
    widths = [f"{stages}.{stage}.block.0.conv1.weight" for stage in range(number)]
    missing = [name for name in widths or [f"{stages}.0.block.0.conv1.weight"] if name not in tensors]
    if missing:
        raise TokenizerError(f"lacks {missing[0]}, so its stages are not known; download the file again")
    return tuple(tensors[name].shape[0] for name in widths), blocks, count(tensors, middle)


def network_without_attention(tensors: Mapping[str, Tensor], middle: str, **options: Any) -> VQGANConfig:
    """Return the network of MaskGIT and of those that descend from it, its widths read from the tensors.

    It has neither attention, nor biases in its blocks, nor 1x1 convolutions around the quantizer. `middle` is the name
    of its middle blocks, `options` are the family's own. Raises TokenizerError as `stage_widths` does.
    """
    channels, blocks, middle_blocks = stage_widths(tensors, "encoder.down", f"encoder.{middle}")
    decoder_channels, decoder_blocks, _ = stage_widths(tensors, "decoder.up", f"decoder.{middle}")
    return VQGANConfig(
        channels=channels,
        stem_channels=tensors["encoder.conv_in.weight"].shape[0],
        blocks=blocks,
        attention_stages=(),
        middle_blocks=middle_blocks,
        middle_attention=False,
        latent_channels=None,
        decoder_channels=decoder_channels,
        decoder_blocks=decoder_blocks,
        last_kernel=1,
        bias=False,
        **options,
    )
