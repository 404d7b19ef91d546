"""One small quantizer of each kind, by name: what every quantizer owes is tested over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from imtok.quantizers import BSQ, FSQ, LFQ, Quantizer, VectorQuantizer

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    f"vq-{metric}-{estimator}-{update}": partial(
        VectorQuantizer, 4, 24, metric=metric, estimator=estimator, codebook_update=update
    )
    for metric in ("euclidean", "cosine")
    for estimator in ("straight_through", "rotation")
    for update in ("ema", "gradient")
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
VQ = [name for name in QUANTIZERS if name.startswith("vq")]


def make(name: str, seed: int = 0) -> Quantizer:
    torch.manual_seed(seed)
    return QUANTIZERS[name]()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def noise_for(quantizer: Quantizer, batch: int = 2, side: int = 4, seed: int = 1) -> Tensor:
    return noise(batch, quantizer.dim, side, side, seed=seed)
