"""RQ-VAE (Lee et al., 2022), as kakaobrain/rq-vae-transformer publishes it: VQGAN with a residual quantizer.

Facts from `rqvae/models/rqvae/quantizations.py` there. A shared codebook is in the file once a stage, and each codebook
has one row more than codes, of zeros, which no latent is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.vqgan_family import VQGANFamily
from imtok.interop.families.vqgan_layout import Layout, number_of
from imtok.quantizer_config import QuantizerConfig, ResidualConfig, VQConfig

_STAGE = "quantizer.codebooks.{}."
_TENSORS = {"weight": "codebook", "embed_ema": "embed_sum", "cluster_size_ema": "cluster_size"}
_WEIGHT = 0.25  # of the commitment, where no configuration says latent_loss_weight


class RQVAE(VQGANFamily):
    """RQ-VAE of Kakao Brain."""

    name = "rqvae"
    label = "RQ-VAE of rq-vae-transformer"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """See `Family.recognises`."""
        return f"{_STAGE.format(0)}weight" in checkpoint.tensors

    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """See `VQGANFamily.quantizer`; raises TokenizerError where the stages are no codebooks of one size."""
        said = self.said(layout.checkpoint)
        shapes = [stage["weight"].shape for stage in _stages(layout.checkpoint)]
        if len(set(shapes)) > 1:
            sizes = ", ".join(str(shape[0] - 1) for shape in shapes)
            raise TokenizerError(
                f"{layout.checkpoint.path}: its stages have {sizes} codes, and imtok has residual quantizers of equal "
                "stages alone"
            )
        part = VQConfig(
            dim=shapes[0][1],
            num_codes=shapes[0][0] - 1,
            decay=number_of(said, "decay", 0.99),
            commitment_weight=number_of(said, "latent_loss_weight", _WEIGHT),
            kmeans_start=False,
            revival_threshold=0.05 if said.get("restart_unused_codes", True) else 0.0,
        )
        return ResidualConfig(part=part, depth=len(shapes), shared=_is_shared(layout.checkpoint)), ()

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """See `VQGANFamily.said`; sizes may be lists of one number a stage."""
        said = super().said(checkpoint)
        return {name: value for name, value in said.items() if name != "n_embed" or not isinstance(value, list)}

    def made(self, layout: Layout) -> dict[str, Tensor]:
        """See `VQGANFamily.made`: codebooks without their last row."""
        stages = _stages(layout.checkpoint)
        stages = stages[:1] if _is_shared(layout.checkpoint) else stages
        made: dict[str, Tensor] = {}
        for number, stage in enumerate(stages):
            codes = len(stage["weight"]) - 1
            made |= {f"quantizer.parts.{number}.{_TENSORS[name]}": value[:codes] for name, value in stage.items()}
        return made

    def read(self, layout: Layout) -> tuple[str, ...]:
        """See `VQGANFamily.read`."""
        names = layout.checkpoint.tensors
        return tuple(name for name in names if name.startswith("quantizer.codebooks."))


def _stages(checkpoint: Checkpoint) -> list[dict[str, Tensor]]:
    """Return the tensors of each stage; raises TokenizerError, which names it, where one is missing."""
    stages: list[dict[str, Tensor]] = []
    while f"{_STAGE.format(len(stages))}weight" in checkpoint.tensors:
        lead = _STAGE.format(len(stages))
        missing = [lead + name for name in _TENSORS if lead + name not in checkpoint.tensors]
        if missing:
            raise TokenizerError(f"{checkpoint.path}: lacks {missing[0]}; download the file again")
        stages.append({name: checkpoint.tensors[lead + name] for name in _TENSORS})
    return stages


def _is_shared(checkpoint: Checkpoint) -> bool:
    """Return whether all stages have one codebook: their tensors are equal."""
    stages = [stage["weight"] for stage in _stages(checkpoint)]
    return len(stages) > 1 and all(torch.equal(stage, stages[0]) for stage in stages[1:])
