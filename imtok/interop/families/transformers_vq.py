"""The image tokenizers of Chameleon and Janus, as transformers has them.

Facts from huggingface/transformers (`models/chameleon/modeling_chameleon.py`, `models/janus/modeling_janus.py`):
Chameleon's has no decoder there, but Meta's own `vqgan.ckpt` has one, in taming's layout. Janus searches codes by
Euclidean distance as they are, and looks them up at length 1; the tokenizer it was ported from has them at length 1 in
both places, so that its tokens differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.taming import CODEBOOK, is_janus
from imtok.interop.families.vqgan_family import VQGANFamily, codebook_record, taming_rules
from imtok.interop.families.vqgan_layout import Layout
from imtok.interop.family import Conversion
from imtok.quantizer_config import QuantizerConfig
from imtok.tokenizer import Tokenizer

_MIDDLE = "encoder.mid.block_1.conv1.weight"
_SAID = {  # names of sizes in taming's configuration, by transformers' names
    "embed_dim": "embed_dim",
    "num_embeddings": "n_embed",
    "latent_channels": "z_channels",
    "base_channels": "ch",
    "channel_multiplier": "ch_mult",
    "num_res_blocks": "num_res_blocks",
    "resolution": "resolution",
}


class TransformersVQ(VQGANFamily):
    """A tokenizer under taming's names, with transformers' configuration beside it."""

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `VQGANFamily.said`."""
        return {ours: checkpoint.settings.get(theirs) for theirs, ours in _SAID.items()}


class Janus(TransformersVQ):
    """Janus's tokenizer."""

    name = "janus"
    label = "Janus's VQ-VAE (transformers)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        names = checkpoint.tensors
        return CODEBOOK in names and _MIDDLE in names and "decoder.conv_out.weight" in names and is_janus(checkpoint)

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """See `VQGANFamily.layout`."""
        return Layout(checkpoint, taming_rules(checkpoint), coarsest_first=True)

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`."""
        return codebook_record(layout, unit_lookup=True), ()

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `VQGANFamily.said`; the image side follows from the patches a side."""
        said, patches = super().said(checkpoint), checkpoint.settings.get("num_patches")
        if not isinstance(patches, int):
            return said
        stages = self.layout(checkpoint).count("encoder.trunk.down.{}.block.0.conv1.weight")
        return {**said, "resolution": patches * 2 ** (stages - 1)}


class Chameleon(TransformersVQ):
    """Chameleon's tokenizer, which transformers has without a decoder."""

    name = "chameleon"
    label = "Chameleon's VQ-VAE (transformers)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`: no other family is without a decoder."""
        names = checkpoint.tensors
        return CODEBOOK in names and _MIDDLE in names and not any(name.startswith("decoder.") for name in names)

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`."""
        return codebook_record(layout, commitment_weight=1.0, codebook_weight=0.25), ()

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`; the decoder is newly drawn, always the same, and all its images are gray.

        It is there to be trained. Until then a gray image says at sight that nothing was learned.
        """
        known = super().convert(checkpoint)
        drawn = _new_decoder(known.config)
        published = {name: theirs for name, theirs in known.published.items() if name not in drawn}
        assumed = (
            "no decoder is in the checkpoint: tokens are Chameleon's, but decoded images are gray until the decoder "
            "is trained by `imtok train --start-from TOKENIZER --freeze-codes`; Meta's own vqgan.ckpt has a decoder"
        )
        made = {**known.made, **drawn}
        return replace(known, published=published, made=made, assumed=(*known.assumed, assumed), no_decoder=True)


def _new_decoder(config: TokenizerConfig) -> dict[str, Tensor]:
    """Draw a decoder whose last layer gives zeros, but for the 1 x 1 convolution that is published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = Tokenizer(config).decoder.state_dict()
    drawn = {f"decoder.{name}": value for name, value in state.items() if not name.startswith("post_quant_conv.")}
    return drawn | {
        name: torch.zeros_like(drawn[name]) for name in ("decoder.conv_out.weight", "decoder.conv_out.bias")
    }
