"""Quantizers: latents (B, D, H, W) to codes (B, H, W) and back, under one contract (`Quantizer`)."""

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
