"""Pure tensor functions under the quantizers: no parameters, no state, no modules."""

from imtok.kernels.binary import codes_to_signs, join_bits, reverse_bits, sign_codes, split_bits
from imtok.kernels.entropy import SignEntropies, assignment_entropies, assignment_logits, sign_entropies
from imtok.kernels.finite_scalar import codes_to_digits, digits_to_codes, finite_scalar_bound, finite_scalar_codes
from imtok.kernels.nearest import nearest_codes
from imtok.kernels.propagation import propagate_index
from imtok.kernels.rotation import rotate_to
from imtok.kernels.sphere import to_sphere, unit_rows
from imtok.kernels.statistics import codebook_statistics

__all__ = [
    "SignEntropies",
    "assignment_entropies",
    "assignment_logits",
    "codebook_statistics",
    "codes_to_digits",
    "codes_to_signs",
    "digits_to_codes",
    "finite_scalar_bound",
    "finite_scalar_codes",
    "join_bits",
    "nearest_codes",
    "propagate_index",
    "reverse_bits",
    "rotate_to",
    "sign_codes",
    "sign_entropies",
    "split_bits",
    "to_sphere",
    "unit_rows",
]
