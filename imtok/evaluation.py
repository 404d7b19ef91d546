"""Reconstruction quality by one stated protocol.

Pictures are brought to shorter side S by Pillow's bicubic filter, the central S x S is encoded and decoded in
fp32 unless told otherwise, and both sides are compared as uint8 RGB. Beside tokens made with `--fit pad`, pictures are
padded to S x S as those were, and what was padded is compared too. PSNR is the mean over images of
10 log10(255^2 / MSE); images that come back exactly have none, are left out of the mean and counted. SSIM is
torchmetrics' (Wang et al., 2004; 11 x 11 Gaussian window, sigma 1.5), the mean over images. Usage counts the codes of
these images.
"""

# Axes: B batch, S size.

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from imtok.cores import usable_cores
from imtok.data.collection import ImageCollection
from imtok.data.images import Fit, decode_image, fit_image
from imtok.devices import Precision, autocast, deterministic, resolve_device
from imtok.errors import ConfigError, ImageError, SourceError
from imtok.parallel import in_order
from imtok.tokenizer import Tokenizer, load, to_float, to_uint8
from imtok.usage import CodebookUsage, count_by_codebook

_SMALLEST = 8  # pixels a side: the window is 11 wide, mirrored at the border


@dataclass(frozen=True)
class Quality:
    """What a tokenizer keeps of a set of images."""

    images: int
    skipped: int  # images that could not be read
    size: int  # side of the square, pixels
    precision: Precision
    psnr: float  # dB, mean over the images that do not come back exactly; infinite where all do
    exact: int  # images that come back exactly
    ssim: float  # in [-1, 1]
    bits_per_image: float
    usage: CodebookUsage
    lpips: float | None = None  # mean over images, where it was asked for
    fit: Fit = "crop"  # how pictures became squares

    @property
    def protocol(self) -> str:
        """How the figures were made, to print beside them."""
        square = {
            "crop": f"shorter side {self.size}, centre crop {self.size}x{self.size}",
            "pad": f"longer side {self.size}, edges repeated to {self.size}x{self.size} and compared too",
        }
        return (
            f"PIL bicubic to {square[self.fit]}, {self.precision}, uint8 RGB; PSNR mean over images of "
            "10 log10(255^2/MSE); SSIM 11x11 Gaussian window, mean over images"
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures by name, as `imtok eval --json` prints them; an infinite PSNR is null."""
        return {
            "images": self.images,
            "skipped": self.skipped,
            "size": self.size,
            "precision": self.precision,
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
            "exact": self.exact,
            "ssim": self.ssim,
            "bits_per_image": self.bits_per_image,
            **{k: v for k, v in self.usage.as_dict().items() if k != "images"},
            "protocol": self.protocol,
        }


def evaluate(
    tokenizer_path: str | Path,
    sources: Sequence[str | Path],
    *,
    size: int | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    batch_size: int = 16,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quality:
    """Measure a tokenizer folder on the images of SOURCEs; `size` is the tokenizer's own by default."""
    tokenizer = load(tokenizer_path).to(resolve_device(device))
    size = size or tokenizer.config.size
    if size < _SMALLEST:
        raise ConfigError(f"--size {size}: SSIM's window needs {_SMALLEST} pixels or more")
    if size % tokenizer.downsample:
        raise ConfigError(f"--size {size}: no multiple of the tokenizer's downsampling {tokenizer.downsample}")
    images = ImageCollection.open(sources)
    if limit is not None:
        images = images.subsample(limit)
    return measure(tokenizer, images, size=size, precision=precision, batch_size=batch_size, progress=progress)


def measure(
    tokenizer: Tokenizer,
    images: ImageCollection,
    *,
    size: int,
    fit: Fit = "crop",
    precision: Precision = "fp32",
    batch_size: int = 16,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quality:
    """Measure a loaded tokenizer; raises SourceError where not one image can be read.

    `perceptual`, two (B, 3, S, S) in [-1, 1] -> their mean distance, adds LPIPS.
    """
    psnrs: list[Tensor] = []
    ssims: list[Tensor] = []
    distance = 0.0
    codes: list[np.ndarray] = []
    done = 0
    for batch in _batches(images, size, fit, batch_size):
        with deterministic(tokenizer.device), autocast(tokenizer.device, precision):
            batch_codes = tokenizer.encode(batch)
            restored = to_uint8(tokenizer.decode(batch_codes)).cpu()
        if perceptual is not None:
            with torch.no_grad():
                pair = (to_float(each.to(tokenizer.device)) for each in (restored, batch))
                distance += float(perceptual(*pair)) * len(batch)
        psnrs.append(psnr(restored, batch))
        ssims.append(ssim(restored, batch))
        codes.append(batch_codes.cpu().numpy())
        done += len(batch)
        if progress:
            progress(done, len(images))
    if not done:
        raise SourceError(f"none of the {len(images)} images can be read; `imtok encode` names why")
    counts = count_by_codebook(codes, tokenizer.num_codes, tokenizer.num_codebooks)
    usage = CodebookUsage.of_codebooks(counts, done)
    bits = usage.tokens / done * math.log2(tokenizer.num_codes)
    all_psnrs = torch.cat(psnrs)
    inexact = all_psnrs[all_psnrs.isfinite()]
    return Quality(
        images=done,
        skipped=len(images) - done,
        size=size,
        precision=precision,
        psnr=float(inexact.mean()) if len(inexact) else math.inf,
        exact=done - len(inexact),
        ssim=float(torch.cat(ssims).mean()),
        bits_per_image=bits,
        usage=usage,
        lpips=distance / done if perceptual is not None else None,
        fit=fit,
    )


def psnr(restored: Tensor, originals: Tensor) -> Tensor:
    """Per image 10 log10(255^2 / MSE) in dB: two (B, 3, H, W) uint8 -> (B,) float64, infinite for equal images."""
    errors = (restored.double() - originals.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / errors)


def ssim(restored: Tensor, originals: Tensor) -> Tensor:
    """Per image structural similarity: two (B, 3, H, W) uint8 -> (B,) float64 in [-1, 1]."""
    values = structural_similarity_index_measure(
        restored.float(), originals.float(), data_range=255.0, reduction="none"
    )
    assert isinstance(values, Tensor)
    return values.double().reshape(-1)


def _batches(images: ImageCollection, size: int, fit: Fit, batch_size: int) -> Iterator[Tensor]:
    """Yield the readable images as (B, 3, S, S) uint8, decoded ahead on all cores.

    Batches are cut from runs of four batches of inputs, so that an unreadable image shortens one batch of its run.
    """
    run = 4 * batch_size
    fitted = in_order(
        lambda index: _fitted(images, index, size, fit),
        range(len(images)),
        workers=usable_cores(),
        ahead=run,
        one_core=False,  # the networks compute meanwhile, on all cores
    )
    with closing(fitted):
        while read := list(itertools.islice(fitted, run)):
            readable = [pixels for pixels in read if pixels is not None]
            for first in range(0, len(readable), batch_size):
                yield torch.stack(readable[first : first + batch_size])


def _fitted(images: ImageCollection, index: int, size: int, fit: Fit) -> Tensor | None:
    try:
        return fit_image(decode_image(images.read(index)), size, fit).pixels
    except (ImageError, SourceError):
        return None
