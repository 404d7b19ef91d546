"""The Triton kernel of the search on a GPU: product and least score in one, no score ever in memory.

Imported by `nearest_gpu` alone, and only when a search runs there, since Triton is not among imtok's dependencies.
"""

# Axes: N vectors, D dimensions, K codes. A program has BLOCK_N latents and a span of the codes, BLOCK_K at a time.
# Triton compiles annotations too, and knows `tl.constexpr` alone.

from typing import Any

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

# So many of D at a time, in all forms alike: a product is then summed in one order, and whichever form a measurement
# prefers, the codes are the same to the last bit. With more, operands no longer fit the registers.
BLOCK_D = 16
CONFIGS = [
    triton.Config({"BLOCK_N": 32, "BLOCK_K": 64}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_N": 64, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 64, "BLOCK_K": 128}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
]


# Counts change from call to call: code made for one that is 1, or a multiple of 16, would be compiled anew.
@triton.jit(do_not_specialize=["count", "num_codes", "span", "bucket"])  # type: ignore[misc, untyped-decorator, unused-ignore]
def nearest_in_span(  # type: ignore[no-untyped-def]
    rows,  # (N, D) float32
    table,  # (K, D) float32
    centre,  # (D,) float32, to be taken from the codes; unread without CENTRED
    offsets,  # (K,) float32
    best,  # (spans, N) float32, written: least scores, -inf where there was a NaN
    codes,  # (spans, N) int64, written: the first code with that score
    count,  # N
    num_codes,  # K
    span,  # codes that a program looks at
    bucket,  # the size of the codebook as the tuning tells sizes apart  # noqa: ARG001
    DIM: tl.constexpr,  # noqa: N803
    CENTRED: tl.constexpr,  # noqa: N803
    BLOCK_D: tl.constexpr,  # noqa: N803
    BLOCK_N: tl.constexpr,  # noqa: N803
    BLOCK_K: tl.constexpr,  # noqa: N803
):
    """Least offset - z.e of each latent over a span of codes, and where it is: program (latents, span)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    first = tl.program_id(1) * span
    last = tl.minimum(first + span, num_codes)
    lane = tl.arange(0, BLOCK_K)
    # Each lane keeps the best of its own codes and the tile it was in; lanes meet once, at the end.
    least = tl.full((BLOCK_N, BLOCK_K), float("inf"), tl.float32)
    tile = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    for start in range(first, last, BLOCK_K):
        code = start + lane
        known = code < last
        products = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        for begin in range(0, DIM, BLOCK_D):
            d = begin + tl.arange(0, BLOCK_D)
            within = d < DIM
            mine = (row < count)[:, None] & within[None, :]
            z = tl.load(rows + row[:, None] * DIM + d[None, :], mask=mine, other=0.0)  # (BLOCK_N, BLOCK_D)
            theirs = within[:, None] & known[None, :]
            e = tl.load(table + code.to(tl.int64)[None, :] * DIM + d[:, None], mask=theirs, other=0.0)
            if CENTRED:
                middle = tl.load(centre + d, mask=within, other=0.0)
                e = tl.where(theirs, e - middle[:, None], 0.0)  # (BLOCK_D, BLOCK_K)
            products = tl.dot(z, e, products, input_precision="ieee")  # TF32 would pick wrong codes
        scores = tl.load(offsets + code, mask=known, other=float("inf"))[None, :] - products
        # Strictly less, so that equal scores stay with the lower index; a NaN stays, since nothing is less than it.
        better = (scores < least) | (scores != scores)
        least = tl.where(better, scores, least)
        tile = tl.where(better, start, tile)
    least = tl.where(least != least, float("-inf"), least)
    winner = tl.min(least, axis=1)
    place = tl.min(tl.where(least == winner[:, None], tile + lane[None, :], 2147483647), axis=1)
    out = tl.program_id(1).to(tl.int64) * count + row
    tl.store(best + out, winner, mask=row < count)
    tl.store(codes + out, place.to(tl.int64), mask=row < count)


def tuned() -> Any:
    """The kernel that measures its forms on the device, once for each D and size of codebook, and takes the fastest."""
    return triton.autotune(CONFIGS, key=["DIM", "bucket"])(nearest_in_span)
