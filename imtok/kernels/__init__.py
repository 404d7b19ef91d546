"""Pure tensor functions under the quantizers: no parameters, no state, no modules."""

from imtok.kernels.finite_scalar import codes_to_digits, digits_to_codes, finite_scalar_bound, round_through
from imtok.kernels.nearest import nearest_codes
from imtok.kernels.rotation import rotate_to
from imtok.kernels.statistics import codebook_statistics

__all__ = [
    "codebook_statistics",
    "codes_to_digits",
    "digits_to_codes",
    "finite_scalar_bound",
    "nearest_codes",
    "rotate_to",
    "round_through",
]
