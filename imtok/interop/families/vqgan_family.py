"""Families whose network is VQGAN's: shapes give the network, names the weights, and each family has its quantizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from imtok.config import TokenizerConfig
from imtok.errors import TokenizerError
from imtok.interop.checkpoint import Checkpoint
from imtok.interop.families.vqgan_layout import (
    BARE_MIDDLE,
    TAMING,
    TAMING_MIDDLE,
    Layout,
    Rules,
    check_said,
    network_of,
    settings_of,
    size_of,
)
from imtok.interop.family import Conversion, Family
from imtok.interop.skeleton import skeleton
from imtok.networks.vqgan_config import VQGANConfig
from imtok.quantizer_config import QuantizerConfig, VQConfig
from imtok.quantizers.base import FLAGS

_PLACES = (
    ("model", "params", "first_stage_config", "params"),  # a diffusion model of latent-diffusion
    ("model", "params"),  # taming-transformers, latent-diffusion
    ("model", "init_args"),  # Lightning's command line
    ("arch",),  # RQ-VAE
    ("params",),
)


class VQGANFamily(Family):
    """A published family with VQGAN's network; names and places of settings are taming's unless it says otherwise."""

    def convert(self, checkpoint: Checkpoint) -> Conversion:
        """See `Family.convert`."""
        layout = self.layout(checkpoint)
        network = network_of(layout, **self.options(checkpoint))
        try:
            quantizer, assumed = self.quantizer(layout)
        except ValidationError as error:
            problem = error.errors()[0]
            place, reason = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
            raise TokenizerError(
                f"{checkpoint.path}: its configuration is of no quantizer: {place}: {reason}"
            ) from error
        said = self.said(checkpoint)
        check_said(checkpoint, said, _sizes(network, quantizer))
        size, of_size = size_of(network, said.get("resolution"))
        config = TokenizerConfig(network=network, quantizer=quantizer, size=size)
        made = self.made(layout)
        ours = [name for name in skeleton(config) if name not in made and name.rpartition(".")[2] not in FLAGS]
        published = {name: layout.published(name) for name in ours}
        return Conversion(config, published, made, assumed=(*of_size, *assumed), read=self.read(layout))

    def layout(self, checkpoint: Checkpoint) -> Layout:
        """Return the checkpoint's tensors by our names."""
        return Layout(checkpoint, taming_rules(checkpoint))

    def options(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the options of the network that no shape says; none unless a family has other than taming."""
        del checkpoint
        return {}

    @abstractmethod
    def quantizer(self, layout: Layout) -> tuple[QuantizerConfig, tuple[str, ...]]:
        """Return the quantizer's record, and sentences about what no configuration says of it."""

    def made(self, layout: Layout) -> dict[str, Tensor]:
        """Return our tensors that are computed, by our names; none unless a family has some."""
        del layout
        return {}

    def read(self, layout: Layout) -> tuple[str, ...]:
        """Return the published names of tensors that `made` is computed from; none unless a family has some."""
        del layout
        return ()

    def said(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Return sizes by their names in taming's configuration: embed_dim, n_embed, and those of `ddconfig`."""
        for place in _PLACES:
            params = settings_of(checkpoint.settings, *place)
            if "ddconfig" in params:
                return {**params, **settings_of(params, "hparams"), **settings_of(params, "ddconfig")}
        return {}


def taming_rules(checkpoint: Checkpoint) -> Rules:
    """Return taming's names of our tensors, for a network with or without attention in the middle."""
    attention = "encoder.mid.attn_1.q.weight" in checkpoint.tensors
    return {**TAMING, **(TAMING_MIDDLE if attention else BARE_MIDDLE)}


def target_of(settings: Mapping[str, Any]) -> str:
    """Return the name of the class that a configuration builds; empty where it names none."""
    model = settings_of(settings, "model")
    return str(model.get("target", model.get("class_path", "")))


def codebook_record(layout: Layout, **options: Any) -> VQConfig:
    """Return the record of a codebook that learns by gradient and has been learned."""
    num_codes, dim = layout.shape("quantizer.codebook")
    usual = {"codebook_update": "gradient", "kmeans_start": False, "revival_threshold": 0.0}
    return VQConfig(**{"dim": dim, "num_codes": num_codes, **usual, **options})


def _sizes(network: VQGANConfig, quantizer: QuantizerConfig) -> dict[str, Any]:
    """Return the sizes that shapes have, by their names in taming's configuration."""
    return {
        "embed_dim": quantizer.base.dim,
        "n_embed": quantizer.num_codes,
        "z_channels": network.latent_channels,
        "ch": network.stem_width,
        "ch_mult": [width / network.stem_width for width in network.channels],
        "num_res_blocks": network.blocks,
    }
