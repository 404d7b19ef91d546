"""Robustness of codes: idempotence, sensitivity to small perturbations, and quantization error.

Shares of changed tokens count the codes of every codebook. Lists by code are of the first codebook, and of codes that
occur at least `SEEN` times.
"""

# Axes: n images, B of a batch, h x w latent grid, Q codebooks, K codes, D latent channels, S side of the square.

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.statistics import CodeShare, ErrorByCode, Idempotence, Pass, Perturbation, Sensitivity
from imtok.data.images import decode_image, to_picture, to_tensor
from imtok.evaluation import psnr

SEEN = 8
LISTED = 10
MOST_ERRORS = 2048


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images with the codes that the tokenizer gives them."""

    pixels: Tensor  # (n, 3, S, S) uint8
    codes: Tensor  # (n, h, w) or (n, h, w, Q) int64


def idempotence(runner: BatchedRunner, codes: Tensor, first_pass: EncodedImages, passes: int = 3) -> Idempotence:
    """Compare codes, (n, h, w) or (n, h, w, Q) int64, with those after passes of decode, round to uint8, encode.

    `first_pass` holds what the codes decode to, and the codes of that.
    """
    before, after, decoded, found = codes, first_pass.codes, first_pass.pixels, []
    for number in range(passes):
        if number > 0:
            before, after = after, runner.encode(decoded)
        decoded = runner.decode(after)
        quality = mean_psnr(decoded, first_pass.pixels)
        found.append(Pass(same_as_first=_share(after == codes), same_as_last=_share(after == before), psnr=quality))
    least_stable = _by_change(codes, first_pass.codes, most=True)
    return Idempotence(images=len(codes), passes=found, least_stable=least_stable)


def sensitivity(runner: BatchedRunner, images: EncodedImages, *, of_decoded: bool = False) -> Sensitivity:
    """Measure which codes change under a shift by one pixel, its edge repeated, and under JPEG.

    JPEG is that of Pillow, with its default of colours at half the resolution.
    """
    found = []
    for name, perturb in PERTURBATIONS.items():
        perturbed = perturb(images.pixels)
        after = runner.encode(perturbed)
        found.append(
            Perturbation(
                name=name,
                changed=_share(after != images.codes),
                psnr=mean_psnr(perturbed, images.pixels),
                most_changed=_by_change(images.codes, after, most=True),
                least_changed=_by_change(images.codes, after, most=False),
            )
        )
    return Sensitivity(images=len(images.pixels), of_decoded=of_decoded, disturbances=found)


def encode_with_error(runner: BatchedRunner, images: Tensor) -> tuple[Tensor, ErrorByCode | None]:
    """Encode (n, 3, S, S) uint8 and measure the distance of each latent to what its codes stand for.

    Returns codes, (n, h, w) or (n, h, w, Q) int64, and the error; None for quantizers whose latents and codes share no
    space. The error of a code is that of the whole latent, all stages and heads included.
    """
    quantizer = runner.tokenizer.quantizer
    errors, tokens = np.zeros(quantizer.num_codes), np.zeros(quantizer.num_codes, np.int64)
    power, codes = 0.0, []
    for latents, quantized in runner.latents(images):
        codes.append(quantized.codes.cpu())
        compared = quantizer.comparable_latents(latents)
        if compared is None:
            continue
        distances = (compared - quantized.latents).double().square().mean(dim=1)  # (B, h, w)
        first = first_codebook(codes[-1]).numpy().ravel()
        errors += np.bincount(first, distances.cpu().numpy().ravel(), quantizer.num_codes)
        tokens += np.bincount(first, minlength=quantizer.num_codes)
        power += float(compared.double().square().mean(dim=1).sum())
    if not tokens.any():
        return torch.cat(codes), None
    occurring = np.flatnonzero(tokens)
    listed = np.sort(occurring[np.argsort(-tokens[occurring], kind="stable")[:MOST_ERRORS]])
    return torch.cat(codes), ErrorByCode(
        mean=float(errors.sum() / tokens.sum()),
        relative=float(errors.sum() / power) if power else 0.0,
        codes=listed.tolist(),
        errors=(errors[listed] / tokens[listed]).tolist(),
        tokens=tokens[listed].tolist(),
    )


def mean_psnr(images: Tensor, originals: Tensor) -> float | None:
    """Return the mean PSNR in dB of the images that differ, None where none does: twice (n, 3, S, S) uint8."""
    # One at a time, because psnr holds them as float64.
    pairs = zip(torch.split(images, 1), torch.split(originals, 1), strict=True)
    values = torch.cat([psnr(image, original) for image, original in pairs])
    differing = values[values.isfinite()]
    return float(differing.mean()) if len(differing) else None


def shift_right(images: Tensor) -> Tensor:
    """Shift by one pixel and repeat the left edge: (n, 3, H, W) -> the same shape."""
    return torch.cat([images[..., :1], images[..., :-1]], dim=-1)


def shift_down(images: Tensor) -> Tensor:
    """Shift by one pixel and repeat the upper edge: (n, 3, H, W) -> the same shape."""
    return torch.cat([images[..., :1, :], images[..., :-1, :]], dim=-2)


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Save as JPEG and read again: (n, 3, H, W) uint8 -> the same shape."""
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


def first_codebook(codes: Tensor) -> Tensor:
    """Return the codes of the first codebook: (n, h, w) or (n, h, w, Q) -> (n, h, w)."""
    return codes if codes.dim() == 3 else codes[..., 0]


def _by_change(before: Tensor, after: Tensor, *, most: bool) -> list[CodeShare]:
    """List codes that occur often enough by how often they changed, equals in their order.

    Codes (n, h, w) or (n, h, w, Q) twice. With `most`, codes that never changed are left out.
    """
    start, end = (first_codebook(codes).numpy().ravel() for codes in (before, after))
    seen = np.bincount(start)
    shares = np.bincount(start, start != end) / np.maximum(seen, 1)
    codes = np.flatnonzero((seen >= SEEN) & (shares > 0) if most else seen >= SEEN)
    order = np.argsort(-shares[codes] if most else shares[codes], kind="stable")[:LISTED]
    return [CodeShare(code=code, share=float(shares[code]), tokens=int(seen[code])) for code in codes[order].tolist()]


def _share(matches: Tensor) -> float:
    return float(matches.double().mean())
