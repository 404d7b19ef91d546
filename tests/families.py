"""One small quantizer of each kind, by name: what every quantizer owes is tested over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from imtok.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    GumbelQuantizer,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    f"vq-{metric}-{estimator}-{update}": partial(
        VectorQuantizer, 4, 24, metric=metric, estimator=estimator, codebook_update=update
    )
    for metric in ("euclidean", "cosine")
    for estimator in ("straight_through", "rotation")
    for update in ("ema", "gradient")
}
QUANTIZERS |= {
    f"vq-{metric}-{estimator}-{update}": partial(
        VectorQuantizer, 4, 24, metric=metric, estimator=estimator, codebook_update=update
    )
    for metric, estimator, update in (
        ("euclidean", "straight_through", "projection"),
        ("euclidean", "rotation", "projection"),
        ("cosine", "rotation", "projection"),
        ("euclidean", "rotation", "frozen"),
        ("cosine", "straight_through", "frozen"),
    )
}
QUANTIZERS |= {
    "vq-projection-with-bias": partial(VectorQuantizer, 4, 24, codebook_update="projection", projection_bias=True),
    "vq-ema-entropy": partial(VectorQuantizer, 4, 24, entropy_weight=0.1),
    "vq-cosine-rotation-gradient-entropy": partial(
        VectorQuantizer, 4, 24, metric="cosine", estimator="rotation", codebook_update="gradient", entropy_weight=0.1
    ),
    "vq-clustering-gradient": partial(VectorQuantizer, 4, 24, codebook_update="gradient", online_clustering=True),
    "vq-one-code": partial(VectorQuantizer, 4, 1, codebook_update="gradient"),
    "vq-one-dimension": partial(VectorQuantizer, 1, 24, estimator="rotation"),
    "index-propagation": partial(
        VectorQuantizer, 8, 24, metric="dot", estimator="index_propagation", codebook_update="gradient"
    ),
    "index-propagation-entropy": partial(
        VectorQuantizer,
        8,
        24,
        metric="dot",
        estimator="index_propagation",
        codebook_update="gradient",
        entropy_weight=0.05,
    ),
}
QUANTIZERS |= {
    "fsq-even": lambda: FSQ([8, 6, 4]),
    "fsq-odd": lambda: FSQ([7, 5, 3]),
    "fsq-mixed": lambda: FSQ([8, 5, 5, 5]),
}
QUANTIZERS |= {
    "lfq": lambda: LFQ(8, batch_entropy_weight=0.1),
    "lfq-joint-entropy": lambda: LFQ(8, batch_entropy_weight=0.1, entropy_group=8),
    "lfq-one-bit": lambda: LFQ(1),
    "bsq": lambda: BSQ(8, batch_entropy_weight=0.1),
    "bsq-grouped-entropy": lambda: BSQ(6, batch_entropy_weight=0.1, entropy_group=3),
}
QUANTIZERS |= {
    "gumbel": lambda: GumbelQuantizer(8, 24),
    "gumbel-other-channels": lambda: GumbelQuantizer(8, 24, code_dim=6),
    "gumbel-mixing": lambda: GumbelQuantizer(8, 24, straight_through=False),
    "residual-vq": lambda: ResidualQuantizer([VectorQuantizer(4, 24, estimator="rotation") for _ in range(3)]),
    "residual-shared-ema": lambda: ResidualQuantizer(VectorQuantizer(4, 24), depth=3),
    "residual-shared-gradient": lambda: ResidualQuantizer(VectorQuantizer(4, 24, codebook_update="gradient"), depth=3),
    "residual-dropout": lambda: ResidualQuantizer(
        [VectorQuantizer(4, 24, codebook_update="gradient") for _ in range(3)], quantizer_dropout=0.5
    ),
    "residual-fsq": lambda: ResidualQuantizer(FSQ([5, 3]), depth=3, scales=[1.0, (1 / 5, 1 / 3), (1 / 25, 1 / 9)]),
    "residual-of-one": lambda: ResidualQuantizer([VectorQuantizer(4, 24)], scales=[0.7]),
    "product-vq": lambda: ProductQuantizer([VectorQuantizer(3, 24, codebook_update="gradient") for _ in range(2)]),
    "product-shared": lambda: ProductQuantizer(VectorQuantizer(3, 24), num_heads=2),
    "product-fsq": lambda: ProductQuantizer(FSQ([7, 5]), num_heads=2),
    "product-of-residuals": lambda: ProductQuantizer(
        [ResidualQuantizer(VectorQuantizer(2, 24, codebook_update="gradient"), depth=2) for _ in range(2)]
    ),
    "residual-of-products": lambda: ResidualQuantizer(
        [ProductQuantizer([VectorQuantizer(2, 24), VectorQuantizer(2, 24)]) for _ in range(2)], scales=[1.0, 0.5]
    ),
}
# In training these draw their codes, or read other latents than the codes returned stand for.
NOISY = {name for name in QUANTIZERS if name.startswith("gumbel")} | {"residual-dropout"}
# Here a part has learned before the next one searches the same codebook.
SHARED_EMA = {"residual-shared-ema", "product-shared"}
VQ = [name for name in QUANTIZERS if name.startswith("vq")]


def make(name: str, seed: int = 0) -> Quantizer:
    torch.manual_seed(seed)
    return QUANTIZERS[name]()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise_for(quantizer: Quantizer, batch: int = 2, side: int = 4, seed: int = 1) -> Tensor:
    return noise(batch, quantizer.dim, side, side, seed=seed)


def codes_of(quantizer: Quantizer, codes: Tensor) -> Tensor:
    """Codes (B, H, W) as the quantizer looks them up: the same in all of its codebooks."""
    count = quantizer.num_codebooks
    return codes if count == 1 else codes.unsqueeze(-1).expand(*codes.shape, count)
