"""diffusers' `VQModel` (huggingface/diffusers, `models/autoencoders/vq_model.py`): VQGAN under names of its own.

Attention is of linear layers there and of 1 x 1 convolutions here, under names that older versions had otherwise. The
decoder numbers its stages from the coarsest. The search is Euclidean, with taming's legacy weights of the losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.vqgan_family import VQGANFamily, codebook_record
from imtok.interop.families.vqgan_layout import SHARED, Layout
from imtok.quantizer_config import QuantizerConfig

_ATTENTION = r"(.*\.attentions\.\d+)"
_RULES = {
    **SHARED,
    r"(encoder|decoder)\.norm_out\.(.*)": r"\1.conv_norm_out.\2",
    r"(.*)\.shortcut\.(.*)": r"\1.conv_shortcut.\2",
    r"(.*)\.resample\.(.*)": r"\1.samplers.0.\2",
    r"(encoder\.)(down\.\d+)\.samplers(.*)": r"\1\2.downsamplers\3",
    r"(decoder\.)(up\.\d+)\.samplers(.*)": r"\1\2.upsamplers\3",
    r"(encoder|decoder)\.(down|up)\.(.*)": r"\1.\2_blocks.\3",
    r"(.*_blocks\.\d+)\.block\.(.*)": r"\1.resnets.\2",
    r"(.*_blocks\.\d+)\.attn\.(.*)": r"\1.attentions.\2",
}
_MIDDLE = {
    r"(.*)\.mid\.0\.(.*)": r"\1.mid_block.resnets.0.\2",
    r"(.*)\.mid\.1\.(.*)": r"\1.mid_block.attentions.0.\2",
    r"(.*)\.mid\.2\.(.*)": r"\1.mid_block.resnets.1.\2",
}
_BARE_MIDDLE = {r"(.*)\.mid\.(\d+)\.(.*)": r"\1.mid_block.resnets.\2.\3"}
_NORM = {rf"{_ATTENTION}\.norm\.(.*)": r"\1.group_norm.\2"}
_OF_ATTENTION = {
    **_NORM,
    rf"{_ATTENTION}\.([qkv])\.(.*)": r"\1.to_\2.\3",
    rf"{_ATTENTION}\.proj_out\.(.*)": r"\1.to_out.0.\2",
}
# Of older versions, which wrote many of the published files.
_OF_FORMER_ATTENTION = {
    **_NORM,
    rf"{_ATTENTION}\.q\.(.*)": r"\1.query.\2",
    rf"{_ATTENTION}\.k\.(.*)": r"\1.key.\2",
    rf"{_ATTENTION}\.v\.(.*)": r"\1.value.\2",
    rf"{_ATTENTION}\.proj_out\.(.*)": r"\1.proj_attn.\2",
}
_SAID = {  # names of sizes in taming's configuration, by diffusers' names
    "vq_embed_dim": "embed_dim",
    "num_vq_embeddings": "n_embed",
    "latent_channels": "z_channels",
    "layers_per_block": "num_res_blocks",
    "sample_size": "resolution",
}
_EXPECTED = {"act_fn": "silu", "norm_type": "group", "in_channels": 3, "out_channels": 3}


class DiffusersVQ(VQGANFamily):
    """diffusers' VQModel."""

    name = "diffusers"
    label = "diffusers' VQModel"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        names = checkpoint.tensors
        return "encoder.down_blocks.0.resnets.0.conv1.weight" in names and "quantize.embedding.weight" in names

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """See `VQGANFamily.layout`."""
        names = checkpoint.tensors
        attention = any(name.startswith("encoder.mid_block.attentions.0.") for name in names)
        former = any(name.endswith(".query.weight") for name in names)
        of_attention = _OF_FORMER_ATTENTION if former else _OF_ATTENTION
        rules = {**_RULES, **(_MIDDLE if attention else _BARE_MIDDLE), **of_attention}
        return Layout(checkpoint, rules, coarsest_first=True)

    def options(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """See `VQGANFamily.options`; raises TokenizerError where the configuration is of another network."""
        for name, expected in _EXPECTED.items():
            said = checkpoint.settings.get(name, expected)
            if said != expected:
                raise TokenizerError(
                    f"{checkpoint.path}: {name} is {said}, and imtok has VQModel with {expected} alone"
                )
        return {"norm_groups": checkpoint.settings.get("norm_num_groups", 32)}

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`."""
        assumed = () if layout.checkpoint.settings else ("norm_groups 32: no configuration says norm_num_groups",)
        return codebook_record(layout, commitment_weight=1.0, codebook_weight=0.25), assumed

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `VQGANFamily.said`."""
        return {ours: checkpoint.settings.get(theirs) for theirs, ours in _SAID.items()}
