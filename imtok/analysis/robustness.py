"""What becomes of codes when pictures go around: idempotence, sensitivity to small changes, and quantization error.

Shares of changed tokens count those of every codebook; figures by code are of the first one, and of codes seen at
least `SEEN` times, since the share of a code seen once says nothing.
"""

# Axes: n images, B of a batch, h x w latent grid, Q codebooks, K codes, D latent channels, S side of the square.

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.statistics import CodeShare, ErrorByCode, Idempotence, Pass, Perturbation, Sensitivity
from imtok.data.images import decode_image, to_picture, to_tensor
from imtok.evaluation import psnr
from imtok.quantizers import Quantizer

SEEN = 8
LISTED = 10
MOST_ERRORS = 2048


def idempotence(runner: BatchedRunner, codes: Tensor, passes: int = 3) -> Idempotence:
    """encode(decode(t)) against t, again and again, pictures rounded to uint8 between: (n, h, w) or (n, h, w, Q) int64.

    Each pass encodes what the codes before it decode to.
    """
    first_picture = picture = runner.decode(codes)
    done, before, least_stable = [], codes, []
    for number in range(passes):
        after = runner.encode(picture)
        picture = runner.decode(after)
        done.append(
            Pass(
                same_as_first=_share(after == codes),
                same_as_last=_share(after == before),
                psnr=mean_psnr(picture, first_picture),
            )
        )
        if number == 0:
            least_stable = _by_change(codes, after, runner, most=True)
        before = after
    return Idempotence(images=len(codes), passes=done, least_stable=least_stable)


def sensitivity(runner: BatchedRunner, images: Tensor, *, of_decoded: bool = False) -> Sensitivity:
    """Which codes change under a shift by one pixel, its edge repeated, and JPEG: (n, 3, S, S) uint8.

    JPEG is Pillow's, with its default of colours at half the resolution.
    """
    codes = runner.encode(images)
    found = []
    for name, perturb in PERTURBATIONS.items():
        perturbed = perturb(images)
        after = runner.encode(perturbed)
        found.append(
            Perturbation(
                name=name,
                changed=_share(after != codes),
                psnr=mean_psnr(perturbed, images),
                most_changed=_by_change(codes, after, runner, most=True),
                least_changed=_by_change(codes, after, runner, most=False),
            )
        )
    return Sensitivity(images=len(images), of_decoded=of_decoded, disturbances=found)


def error_by_code(runner: BatchedRunner, images: Tensor) -> ErrorByCode | None:
    """How far latents lie from what stands for them: (n, 3, S, S) uint8; None where codes lie in a space of their own.

    A code's error is that of the whole latent, all stages and heads included.
    """
    quantizer = runner.tokenizer.quantizer
    if not has_error(quantizer):
        return None
    errors, tokens = np.zeros(quantizer.num_codes), np.zeros(quantizer.num_codes, np.int64)
    power = 0.0
    for latents, quantized in runner.latents(images):
        compared = quantizer.comparable_latents(latents)
        assert compared is not None  # `has_error` says so
        distances = (compared - quantized.latents).double().square().mean(dim=1)  # (B, h, w)
        codes = _of_first_codebook(quantized.codes, runner).cpu().numpy().ravel()
        errors += np.bincount(codes, distances.cpu().numpy().ravel(), quantizer.num_codes)
        tokens += np.bincount(codes, minlength=quantizer.num_codes)
        power += float(compared.double().square().mean(dim=1).sum())
    occurring = np.flatnonzero(tokens)
    shown = np.sort(occurring[np.argsort(-tokens[occurring], kind="stable")[:MOST_ERRORS]])
    return ErrorByCode(
        mean=float(errors.sum() / tokens.sum()),
        relative=float(errors.sum() / power) if power else 0.0,
        codes=shown.tolist(),
        errors=(errors[shown] / tokens[shown]).tolist(),
        tokens=tokens[shown].tolist(),
    )


def has_error(quantizer: Quantizer) -> bool:
    """Whether latents and codes share a space, so that they can be compared."""
    return quantizer.comparable_latents(torch.empty(0, quantizer.dim, 1, 1)) is not None


def mean_psnr(pictures: Tensor, originals: Tensor) -> float | None:
    """Mean PSNR of those that differ, in dB, None where none does: twice (n, 3, S, S) uint8."""
    # One at a time, since they become float64.
    pairs = zip(torch.split(pictures, 1), torch.split(originals, 1), strict=True)
    values = torch.cat([psnr(picture, original) for picture, original in pairs])
    differing = values[values.isfinite()]
    return float(differing.mean()) if len(differing) else None


def shift_right(images: Tensor) -> Tensor:
    """By one pixel, the left edge repeated: (n, 3, H, W) -> the same shape."""
    return torch.cat([images[..., :1], images[..., :-1]], dim=-1)


def shift_down(images: Tensor) -> Tensor:
    """By one pixel, the upper edge repeated: (n, 3, H, W) -> the same shape."""
    return torch.cat([images[..., :1, :], images[..., :-1, :]], dim=-2)


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Saved as JPEG and read again: (n, 3, H, W) uint8 -> the same shape."""
    restored = []
    for image in images:
        file = io.BytesIO()
        to_picture(image).save(file, "JPEG", quality=quality)
        restored.append(to_tensor(decode_image(file.getvalue())))
    return torch.stack(restored)


PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "shift right by 1 pixel": shift_right,
    "shift down by 1 pixel": shift_down,
    "JPEG quality 95": partial(through_jpeg, quality=95),
    "JPEG quality 75": partial(through_jpeg, quality=75),
}


def _by_change(before: Tensor, after: Tensor, runner: BatchedRunner, *, most: bool) -> list[CodeShare]:
    """Codes seen often enough by how often they changed, equals in their order; `most` leaves out those that never did.

    Codes (n, h, w) or (n, h, w, Q) twice.
    """
    start, end = (_of_first_codebook(codes, runner).numpy().ravel() for codes in (before, after))
    seen = np.bincount(start)
    shares = np.bincount(start, start != end) / np.maximum(seen, 1)
    codes = np.flatnonzero((seen >= SEEN) & (shares > 0) if most else seen >= SEEN)
    order = np.argsort(-shares[codes] if most else shares[codes], kind="stable")[:LISTED]
    return [CodeShare(code=code, share=float(shares[code]), tokens=int(seen[code])) for code in codes[order].tolist()]


def _of_first_codebook(codes: Tensor, runner: BatchedRunner) -> Tensor:
    return codes if runner.tokenizer.num_codebooks == 1 else codes[..., 0]


def _share(held: Tensor) -> float:
    return float(held.double().mean())
