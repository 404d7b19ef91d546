"""VQGAN as taming-transformers publishes it, with a codebook or Gumbel-softmax, and latent diffusion's VQ models.

Facts from CompVis/taming-transformers (`taming/models/vqgan.py`, `taming/modules/vqvae/quantize.py`) and
CompVis/latent-diffusion (`ldm/models/autoencoder.py`): both have one network and one search. The published loss weighs
the commitment by 1 and the codebook by beta = 0.25 (`legacy`), which is the paper's the other way round.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.vqgan_family import VQGANFamily, codebook_record, taming_rules, target_of
from imtok.interop.families.vqgan_layout import Layout, number_of
from imtok.quantizer_config import GumbelConfig, QuantizerConfig

CODEBOOK = "quantize.embedding.weight"
VQ_CLASSES = ("VQModel", "VQModelInterface")  # of taming-transformers and latent-diffusion
_KL_WEIGHT = 5e-4  # of taming's GumbelQuantize, where no configuration says it


class Taming(VQGANFamily):
    """VQGAN with a codebook that is searched by Euclidean distance."""

    name = "taming"
    label = "VQGAN of taming-transformers or latent-diffusion"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`; IBQ has the same keys, and is known by its configuration or its moving average."""
        return has_taming_keys(checkpoint) and not is_ibq(checkpoint)

    def fits(self, checkpoint: Checkpoint) -> bool:
        """See `Family.fits`; not where the configuration names IBQ, whose search gives other codes."""
        return has_taming_keys(checkpoint) and not target_of(checkpoint.settings).endswith(".IBQ")

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`; raises TokenizerError on SEED-Voken's search by cosine."""
        if self.said(layout.checkpoint).get("l2_normalize"):
            raise TokenizerError(
                f"{layout.checkpoint.path}: l2_normalize is true by its configuration: codes are searched at length 1 "
                "and looked up as they are, which imtok has not"
            )
        return codebook_record(layout, commitment_weight=1.0, codebook_weight=0.25), ()


class TamingGumbel(VQGANFamily):
    """VQGAN with Gumbel-softmax; a token is the largest logit, where taming draws noise at evaluation too."""

    name = "taming-gumbel"
    label = "Gumbel VQGAN of taming-transformers"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return "quantize.proj.weight" in checkpoint.tensors and "quantize.embed.weight" in checkpoint.tensors

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """See `VQGANFamily.layout`; the 1 x 1 convolution to logits is a linear map here."""
        rules = {
            r"quantizer\.codebook": "quantize.embed.weight",
            r"quantizer\.projection\.(.*)": r"quantize.proj.\1",
        }
        return Layout(checkpoint, {**taming_rules(checkpoint), **rules})

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`."""
        num_codes, code_dim = layout.shape("quantizer.codebook")
        dim = layout.shape("quantizer.projection.weight")[1]
        weight = number_of(self.said(layout.checkpoint), "kl_weight", _KL_WEIGHT)
        return GumbelConfig(dim=dim, num_codes=num_codes, code_dim=code_dim, kl_weight=weight), ()

    def made(self, layout: Layout) -> dict[str, Tensor]:
        """See `VQGANFamily.made`: a run that goes on begins with its own temperature."""
        del layout
        return {"quantizer.progress": torch.zeros(())}


def has_taming_keys(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint has an encoder, a codebook and a decoder under taming's names, finest stage first."""
    names = checkpoint.tensors
    parts = (CODEBOOK, "quant_conv.weight", "encoder.mid.block_1.conv1.weight", "decoder.conv_out.weight")
    return all(name in names for name in parts) and not is_janus(checkpoint)


def is_janus(checkpoint: Checkpoint) -> bool:
    """Return whether taming's names are Janus's, whose decoder numbers its stages from the coarsest.

    A decoder of one stage has no order, and is Janus's where its configuration says so.
    """
    coarsest_first = "decoder.up.0.upsample.conv.weight" in checkpoint.tensors
    return coarsest_first or "janus" in str(checkpoint.settings.get("model_type", ""))


def is_ibq(checkpoint: Checkpoint) -> bool:
    """Return whether taming's names are IBQ's: by the class that is built, else by a moving average of the weights."""
    target = target_of(checkpoint.settings)
    return target.endswith(".IBQ") if target else checkpoint.averaged
