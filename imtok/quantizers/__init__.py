"""Quantizers: latents (B, D, H, W) to codes (B, H, W) and back, under one contract (`Quantizer`).

Names are handed out lazily, since the configuration records in this package must be importable without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imtok.lazy import lazy_names

if TYPE_CHECKING:
    from imtok.quantizers.base import Quantized, Quantizer
    from imtok.quantizers.binary import BSQ, LFQ
    from imtok.quantizers.finite_scalar import FSQ
    from imtok.quantizers.gumbel import GumbelQuantizer
    from imtok.quantizers.optimizer_state import forget_moved_codes
    from imtok.quantizers.product import ProductQuantizer
    from imtok.quantizers.residual import ResidualQuantizer
    from imtok.quantizers.sequence import SequenceQuantizer
    from imtok.quantizers.vector import VectorQuantizer

__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "GumbelQuantizer",
    "ProductQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "SequenceQuantizer",
    "VectorQuantizer",
    "forget_moved_codes",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BSQ": "imtok.quantizers.binary",
        "FSQ": "imtok.quantizers.finite_scalar",
        "LFQ": "imtok.quantizers.binary",
        "GumbelQuantizer": "imtok.quantizers.gumbel",
        "ProductQuantizer": "imtok.quantizers.product",
        "Quantized": "imtok.quantizers.base",
        "Quantizer": "imtok.quantizers.base",
        "ResidualQuantizer": "imtok.quantizers.residual",
        "SequenceQuantizer": "imtok.quantizers.sequence",
        "VectorQuantizer": "imtok.quantizers.vector",
        "forget_moved_codes": "imtok.quantizers.optimizer_state",
    },
)
