"""Statistics and visualisations with plausible numbers, for tests of report and terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

from imtok.analysis.statistics import (
    Bits,
    ClassUse,
    CodeShare,
    Dimension,
    Duplicates,
    ErrorByCode,
    Finding,
    Geometry,
    Histogram,
    Idempotence,
    Neighbours,
    Pass,
    Perturbation,
    PositionMap,
    Reconstruction,
    Runs,
    Sensitivity,
    Span,
    Statistics,
    TokenizerStatistics,
    Use,
)
from imtok.analysis.visualisations import Visualisations

_K, _SIDE = 1024, 16


def _use(**changes: Any) -> dict[str, Any]:
    return {
        "tokens": 256_000,
        "used": 980,
        "usage": 980 / _K,
        "dead": 44,
        "nearly_dead": 12,
        "expected_used": 996.5,
        "entropy_bits": 9.12,
        "entropy_corrected_bits": 9.123,
        "perplexity": 556.4,
        "normalized_perplexity": 556.4 / _K,
        "gini": 0.52,
        "zipf_slope": -0.61,
    } | changes


def example(*, tokenizer: bool = True, images: bool = True, **changes: Any) -> Statistics:
    """A whole record; `changes` replace fields by name."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    entropy = 8.6 - 1.5 * (rows**2 + columns**2) / 2 + 0.1 * draw.standard_normal((_SIDE, _SIDE))
    ranks = np.unique(np.geomspace(1, 980, 60).astype(int))
    seen = np.unique(np.geomspace(1, 1000, 40).astype(int))
    values: dict[str, Any] = {
        **_use(),
        "name": "tokens",
        "fingerprint": "3f" * 32,
        "quantizer": "VQ of 1024 codes, euclidean, rotation, ema codebook",
        "images": 1000,
        "skipped": 3,
        "size": 128,
        "grid": (_SIDE, _SIDE),
        "codebook_size": _K,
        "num_codebooks": 1,
        "max_bits": 10.0,
        "codebooks": [Use(**_use())],
        "per_256_images": Runs(runs=3, usage=0.91, least=0.89, most=0.93),
        "top": [(17, 4100), (3, 3900), (250, 2800), (999, 2100), (41, 1900), (5, 1700), (77, 1500), (8, 1400)],
        "frequency": [
            Span(low=0, high=0, codes=44),
            Span(low=1, high=1, codes=6),
            Span(low=2, high=9, codes=40),
            Span(low=10, high=99, codes=300),
            Span(low=100, high=999, codes=560),
            Span(low=1000, high=9999, codes=74),
        ],
        "rank_frequency": [(int(rank), int(4100 * rank**-0.61) + 1) for rank in ranks],
        "growth": [(int(count), int(980 * (1 - np.exp(-count / 90)))) for count in seen],
        "bits": Bits(
            raw_per_token=10.0,
            raw_per_image=2560.0,
            raw_per_pixel=2560 / 128**2,
            coded_per_token=7.4,
            coded_per_image=7.4 * 256,
            coded_per_pixel=7.4 * 256 / 128**2,
            coder="left neighbour",
        ),
        "positions": PositionMap(
            images=1000, entropy_bits=entropy.tolist(), limit_bits=np.log2(1000), surprisal_bits=(entropy + 1).tolist()
        ),
        "horizontal": Neighbours(
            images=1000,
            pairs=240_000,
            distinct=61_000,
            contexts_share=1.0,
            mutual_information_bits=2.9,
            mutual_information_corrected_bits=2.4,
            conditional_entropy_bits=6.2,
            conditional_entropy_corrected_bits=6.7,
            coded_bits=7.4,
        ),
        "vertical": Neighbours(
            images=1000,
            pairs=240_000,
            distinct=64_000,
            contexts_share=1.0,
            mutual_information_bits=2.7,
            mutual_information_corrected_bits=2.2,
            conditional_entropy_bits=6.4,
            conditional_entropy_corrected_bits=6.9,
            coded_bits=7.6,
        ),
        "dimensions": [
            Dimension(
                codebook=0,
                dimension=number,
                shares=[0.05, 0.1, 0.2, 0.3, 0.2, 0.1, 0.03, 0.02][: 8 if number == 0 else 5],
                entropy_bits=2.4,
                max_bits=float(np.log2(8 if number == 0 else 5)),
            )
            for number in range(4)
        ],
        "classes": [
            ClassUse(
                label=number,
                name=name,
                images=100,
                tokens=25_600,
                used=700 + 20 * number,
                perplexity=300.0 + 10 * number,
                divergence_bits=0.4 + 0.05 * number,
                own=[(number * 10 + 1, 6.2), (number * 10 + 2, 4.4), (number * 10 + 3, 3.1)],
            )
            for number, name in enumerate(("bird", "cat", "ship"))
        ],
        "duplicates": Duplicates(
            images=1000, duplicates=2, groups=1, largest=[["cat/1.jpg", "cat/1-copy.jpg", "ship/9.jpg"]]
        ),
        "tokenizer": _tokenizer(images) if tokenizer else None,
        "findings": [
            Finding(
                name="dead-codes",
                grade="warning",
                text="44 of 1024 codes never used; the rotation estimator or dead-code revival brings them back",
                page="docs/collapse.md#dead-codes",
            )
        ],
    }
    return Statistics(**(values | changes))


def _tokenizer(images: bool) -> TokenizerStatistics:
    draw = np.random.default_rng(1)
    points = draw.standard_normal((300, 2)) * (2.0, 0.8)
    counts = np.sort(draw.zipf(1.6, 300).clip(max=4000))[::-1]
    worst = [CodeShare(code=int(code), share=0.9 - 0.1 * place, tokens=40) for place, code in enumerate((4, 90, 311))]
    best = [CodeShare(code=int(code), share=0.02 * place, tokens=400) for place, code in enumerate((17, 3, 250))]
    return TokenizerStatistics(
        name="tokens/tokenizer",
        quantizer="VQ of 1024 codes, euclidean, rotation, ema codebook",
        geometry=[
            Geometry(
                codebook=0,
                fixed=False,
                codes=_K,
                dim=32,
                mean_norm=2.6,
                norms=_histogram(draw.gamma(20, 0.13, 2000)),
                median_distance=0.81,
                distances=_histogram(draw.gamma(9, 0.09, 2000)),
                near_duplicates=5,
                effective_rank=12.4,
                effective_rank_used=9.8,
                points=[(float(x), float(y)) for x, y in points],
                point_codes=list(range(300)),
                point_counts=[int(count) for count in counts],
            )
        ],
        idempotence=Idempotence(
            images=64,
            passes=[
                Pass(same_as_first=0.81, same_as_last=0.81, psnr=36.1),
                Pass(same_as_first=0.77, same_as_last=0.93, psnr=35.0),
                Pass(same_as_first=0.76, same_as_last=0.97, psnr=34.8),
            ],
            least_stable=worst,
        ),
        sensitivity=Sensitivity(
            images=64,
            of_decoded=not images,
            disturbances=[
                Perturbation(name=name, changed=share, psnr=psnr, most_changed=worst, least_changed=best)
                for name, share, psnr in (
                    ("shift right by 1 pixel", 0.62, 24.8),
                    ("shift down by 1 pixel", 0.60, 25.1),
                    ("JPEG quality 95", 0.11, 42.0),
                    ("JPEG quality 75", 0.34, 34.0),
                )
            ],
        ),
        error=ErrorByCode(
            mean=0.011,
            relative=0.09,
            codes=list(range(300)),
            errors=[float(error) for error in draw.gamma(4, 0.004, 300)],
            tokens=[int(count) for count in counts],
        )
        if images
        else None,
        reconstruction=Reconstruction(
            images=64, size=128, psnr=25.9, ssim=0.74, protocol="PIL bicubic to 128, uint8 RGB"
        )
        if images
        else None,
    )


def _histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, bins=30)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def example_pictures(*, images: bool = True) -> Visualisations:
    """Smooth coloured squares in the places of pictures."""
    draw = np.random.default_rng(2)
    swatches = np.repeat(draw.integers(0, 256, (64, 1, 1, 3), np.uint8), 8, 1).repeat(8, 2)
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    shown = np.stack([np.stack([np.roll(ramp[None].repeat(128, 0), 16 * i, axis=1)] * 3, -1) for i in range(6)])
    return Visualisations(
        codes=np.arange(64),
        counts=np.sort(draw.integers(1, 4000, 64))[::-1],
        swatches=swatches,
        patches=swatches // 2 + 60,
        patch_counts=np.arange(64),
        decoded=shown,
        originals=shown // 2 + 100 if images else None,
        keys=tuple(f"photos/{number}.jpg" for number in range(6)),
    )
