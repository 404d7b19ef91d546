"""Diagnostics of a tokenizer beside its tokens: geometry, robustness, quantization error, reconstruction, pictures.

Idempotence is measured on evenly spaced images of the token set. Sensitivity and mean patches are measured on evenly
spaced images of those given or, without images, on what the tokens decode to. Quantization error and reconstruction
need images. The images may be others than those the tokens were made from.
"""

# Axes: n images of the sample, h x w latent grid, Q codebooks, K codes, S side of the square.

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from imtok.analysis import robustness
from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.geometry import code_vectors, codebook_geometry, distinct_codebooks, evenly_spaced
from imtok.analysis.robustness import EncodedImages
from imtok.analysis.statistics import Reconstruction, TokenizerStatistics
from imtok.analysis.visualisations import Visualisations, mean_patches, most_used, swatches, to_pixels
from imtok.data.collection import ImageCollection
from imtok.data.images import fit_image
from imtok.entropy import Counts
from imtok.errors import ConfigError, ImageError, SourceError, TokenizerError, TokensError
from imtok.evaluation import Measurement, build_metrics
from imtok.tokenizer import Tokenizer
from imtok.tokens import TokenDataset

PASSES = 3  # of idempotence
MOST_PAIRS = 6  # originals shown beside their reconstructions


def diagnose_tokenizer(
    tokenizer: Tokenizer,
    name: str,
    tokens: TokenDataset,
    counts: Counts,
    progress: Callable[[int, int], None] | None = None,
    *,
    images: ImageCollection | None = None,
    sample: int = 64,
    batch_size: int = 16,
    device: str = "auto",
) -> tuple[TokenizerStatistics, Visualisations]:
    """Measure the tokenizer of a token set on at most `sample` images, given (Q, K) how often each code occurs.

    The tokenizer moves to the device and into eval mode. Each image is encoded once and decoded once. Unreadable images
    are left out. The sample is held as uint8 pixels, 3 S^2 bytes an image. `progress` takes (images that went through
    encoder or decoder, those in all).

    Raises TokenizerError where another tokenizer made the tokens, TokensError where they are of no image, SourceError
    where no image can be read, and ConfigError on a sample of none.
    """
    check_tokenizer(tokenizer, name, tokens, sample)
    pairs = [tokens[index] for index in evenly_spaced(len(tokens), sample).tolist()]
    keys, codes = [key for key, _ in pairs], torch.stack([each for _, each in pairs])
    given = None
    if images is not None:
        keys, given = _read(images.subsample(sample), tokens)
    shown = most_used(counts[0])
    total = len(codes) * (1 + 2 * PASSES) + len(shown)  # idempotence and swatches
    total += len(keys) * (len(robustness.PERTURBATIONS) + (2 if given is not None else 0))
    on_images = (lambda done: progress(done, total)) if progress else None
    runner = BatchedRunner(tokenizer, device=device, batch_size=batch_size, on_images=on_images)
    decoded = runner.decode(codes)
    first_pass = EncodedImages(decoded, runner.encode(decoded))
    error, reconstruction = None, None
    if given is None:
        sampled, grids, restored = first_pass, codes, decoded
    else:
        grids, error = robustness.encode_with_error(runner, given)
        sampled, restored = EncodedImages(given, grids), runner.decode(grids)
        reconstruction = _reconstruction(runner, tokens, sampled, restored)
    statistics = TokenizerStatistics(
        name=name,
        quantizer=tokenizer.config.quantizer.summary,
        geometry=[
            codebook_geometry(
                code_vectors(base), counts[books].sum(axis=0), codebook=books[0], fixed=not base.code_tensors()
            )
            for base, books in distinct_codebooks(tokenizer.quantizer)
        ],
        idempotence=robustness.idempotence(runner, codes, first_pass, PASSES),
        sensitivity=robustness.sensitivity(runner, sampled, of_decoded=given is None),
        error=error,
        reconstruction=reconstruction,
    )
    patches, patch_counts = mean_patches(sampled.pixels, robustness.first_codebook(grids), shown)
    shown_images = evenly_spaced(len(keys), MOST_PAIRS).tolist()
    return statistics, Visualisations(
        codes=shown,
        counts=counts[0][shown],
        swatches=swatches(runner, shown, counts),
        patches=patches,
        patch_counts=patch_counts,
        decoded=to_pixels(restored[shown_images]),
        originals=to_pixels(given[shown_images]) if given is not None else None,
        keys=tuple(keys[index] for index in shown_images),
    )


def check_tokenizer(tokenizer: Tokenizer, name: str, tokens: TokenDataset, sample: int) -> None:
    """Raise the errors of `diagnose_tokenizer` that need no computation."""
    if sample < 1:
        raise ConfigError(f"sample {sample}: expected 1 image or more; 64 is usual")
    if tokenizer.fingerprint != tokens.fingerprint:
        raise TokenizerError(
            f"{name}: is tokenizer {tokenizer.fingerprint[:12]}, but {tokens.store} holds tokens of "
            f"{tokens.fingerprint[:12]}; give the one that made them, of which {tokens.store} has a copy"
        )
    if tokenizer.downsample is None:
        raise ConfigError(
            f"{name}: its codes are a sequence, and pictures of codes and shifts of the image need codes with a place; "
            "give --tokens-only, or leave out -t, --deep and --images"
        )
    if not len(tokens):
        raise TokensError(f"{tokens.store}: holds tokens of no image, so there is nothing to decode; encode some first")


def _read(images: ImageCollection, tokens: TokenDataset) -> tuple[list[str], Tensor]:
    """Read the readable images: keys, and (n, 3, S, S) uint8 as for the tokens; raises SourceError without any."""
    keys, pixels = [], []
    for index, key in enumerate(images.keys):
        try:
            image = images.picture(index)
        except (ImageError, SourceError):
            continue
        keys.append(key)
        pixels.append(fit_image(image, tokens.info.size, tokens.info.fit).pixels)
    if not keys:
        raise SourceError(f"no image of {len(images)} can be read; `imtok encode` says why")
    return keys, torch.stack(pixels)


def _reconstruction(
    runner: BatchedRunner, tokens: TokenDataset, originals: EncodedImages, restored: Tensor
) -> Reconstruction | None:
    """Compare images with what their codes decode to; None where they are too small for a metric."""
    metrics = build_metrics()
    if any(tokens.info.size < metric.smallest for metric in metrics):
        return None
    measured = Measurement(metrics, num_codes=tokens.codebook_size, num_codebooks=tokens.num_codebooks)
    split = (torch.split(each, runner.batch_size) for each in (restored, originals.pixels, originals.codes))
    for batch in zip(*split, strict=True):
        measured.update(*batch)
    quality = measured.quality(skipped=0, size=tokens.info.size, fit=tokens.info.fit)
    return Reconstruction.model_validate(
        {"images": quality.images, "size": quality.size, "protocol": quality.protocol, **quality.values}
    )
