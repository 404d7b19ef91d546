"""The configuration records of quantizers under their public names, and the union of them by `kind`."""

from __future__ import annotations

from imtok.quantizers.binary_config import BSQConfig, LFQConfig
from imtok.quantizers.finite_scalar_config import FSQConfig
from imtok.quantizers.gumbel_config import GumbelConfig
from imtok.quantizers.record import QuantizerRecord
from imtok.quantizers.union import KINDS, BaseQuantizerConfig, ProductConfig, QuantizerConfig, ResidualConfig
from imtok.quantizers.vector_config import VQConfig

__all__ = [
    "KINDS",
    "BSQConfig",
    "BaseQuantizerConfig",
    "FSQConfig",
    "GumbelConfig",
    "LFQConfig",
    "ProductConfig",
    "QuantizerConfig",
    "QuantizerRecord",
    "ResidualConfig",
    "VQConfig",
]
