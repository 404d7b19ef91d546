"""A tokenizer looked at beside its tokens: geometry, looks of codes, idempotence, sensitivity, error, reconstruction.

Idempotence is of an evenly spaced sample of the tokens. Sensitivity and mean patches are of an evenly spaced sample of
the images or, where none are given, of what the tokens decode to; error and reconstruction need images. The images need
not be those the tokens were made of.
"""

# Axes: n images of the sample, h x w latent grid, Q codebooks, K codes, S side of the square.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imtok.analysis.batched_runner import BatchedRunner
from imtok.analysis.code_visualisation import mean_patches, most_used, swatches, to_pixels
from imtok.analysis.geometry import code_tables, codebook_geometry, evenly_spaced
from imtok.analysis.robustness import PERTURBATIONS, error_by_code, has_error, idempotence, sensitivity
from imtok.analysis.statistics import Geometry, Reconstruction, TokenizerStatistics
from imtok.analysis.visualisations import Visualisations
from imtok.data.collection import ImageCollection
from imtok.data.images import decode_image, fit_image
from imtok.entropy import Counts
from imtok.errors import ConfigError, ImageError, SourceError, TokenizerError, TokensError
from imtok.evaluation import build_metrics, measure
from imtok.tokenizer import Tokenizer
from imtok.tokens import TokenDataset

PASSES = 3  # of idempotence
MOST_PAIRS = 6  # pictures to look at


@dataclass(frozen=True, eq=False)
class _Sample:
    """Images with their keys."""

    keys: list[str]
    pixels: Tensor  # (n, 3, S, S) uint8


def inspect_tokenizer(
    tokenizer: Tokenizer,
    name: str,
    tokens: TokenDataset,
    counts: Counts,
    *,
    images: ImageCollection | None = None,
    sample: int = 64,
    batch_size: int = 16,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TokenizerStatistics, Visualisations]:
    """What the tokenizer of a token set shows, on at most `sample` images: with (Q, K) how often each code occurs.

    The tokenizer is put on the device and in eval mode. With `images` there are also quantization error, quality of
    reconstruction and originals beside what comes back; unreadable ones are passed over. The sample is held as uint8
    pixels, 3 S^2 bytes an image. `progress` hears of steps done and steps in all.

    Raises TokenizerError where another tokenizer made the tokens, TokensError where they are of no image, SourceError
    where none of the images can be read, and ConfigError on a sample of none.
    """
    check_tokenizer(tokenizer, name, tokens, sample)
    token_keys, codes = _sampled(tokens, sample)
    images = images.subsample(sample) if images is not None else None
    given = _read(images, tokens) if images is not None else None
    steps = _Steps(_steps_ahead(tokenizer, tokens, counts, given, len(codes)), progress)
    runner = BatchedRunner(tokenizer, device=device, batch_size=batch_size, on_images=steps.add)
    shown = given or _Sample(token_keys, runner.decode(codes))
    grids = runner.encode(shown.pixels) if given else codes
    statistics = TokenizerStatistics(
        name=name,
        quantizer=tokenizer.config.quantizer.summary,
        geometry=_geometry(tokenizer, counts),
        idempotence=idempotence(runner, codes, PASSES),
        sensitivity=sensitivity(runner, shown.pixels, of_decoded=given is None),
        error=error_by_code(runner, given.pixels) if given else None,
        reconstruction=_reconstruction(runner, images, tokens, steps) if images is not None else None,
    )
    return statistics, _pictures(runner, shown, grids, counts, originals=given is not None)


class _Steps:
    """Images that went through encoder or decoder, told as they do."""

    def __init__(self, total: int, tell: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._tell = 0, total, tell

    def add(self, images: int) -> None:
        self._done += images
        if self._tell:
            self._tell(self._done, self._total)


def _steps_ahead(
    tokenizer: Tokenizer, tokens: TokenDataset, counts: Counts, given: _Sample | None, sampled: int
) -> int:
    """How many there will be, of the images `given` and of `sampled` of the tokens; a test holds it to that."""
    steps = sampled * (1 + 2 * PASSES)  # idempotence
    shown = len(given.keys) if given else sampled
    steps += shown  # encoded, or decoded where none are given
    steps += shown * (1 + len(PERTURBATIONS))  # sensitivity
    steps += len(most_used(counts[0]))  # swatches
    if given is None:
        return steps
    steps += shown if has_error(tokenizer.quantizer) else 0
    steps += 2 * shown if _measurable(tokens) else 0  # reconstruction
    return steps + min(MOST_PAIRS, shown)  # pictures to look at


def check_tokenizer(tokenizer: Tokenizer, name: str, tokens: TokenDataset, sample: int) -> None:
    """Raise what `inspect_tokenizer` would raise of these, before anything is computed."""
    if sample < 1:
        raise ConfigError(f"sample {sample}: expected 1 image or more; 64 is usual")
    if tokenizer.fingerprint != tokens.fingerprint:
        raise TokenizerError(
            f"{name}: is tokenizer {tokenizer.fingerprint[:12]}, but {tokens.folder} holds tokens of "
            f"{tokens.fingerprint[:12]}; give the one that made them, of which {tokens.folder} has a copy"
        )
    if not len(tokens):
        raise TokensError(
            f"{tokens.folder}: holds tokens of no image, so there is nothing to decode; encode some first"
        )


def _sampled(tokens: TokenDataset, sample: int) -> tuple[list[str], Tensor]:
    """Keys and codes (n, h, w) or (n, h, w, Q) of evenly spaced images."""
    pairs = [tokens[place] for place in evenly_spaced(len(tokens), sample).tolist()]
    return [key for key, _ in pairs], torch.stack([codes for _, codes in pairs])


def _read(images: ImageCollection, tokens: TokenDataset) -> _Sample:
    """Images brought to the square of the tokens, unreadable ones left out; raises SourceError where all are."""
    keys, pixels = [], []
    for index, key in enumerate(images.keys):
        try:
            picture = decode_image(images.read(index))
        except (ImageError, SourceError):
            continue
        keys.append(key)
        pixels.append(fit_image(picture, tokens.info.size, tokens.info.fit).pixels)
    if not keys:
        raise SourceError(f"none of the {len(images)} images can be read; `imtok encode` names why")
    return _Sample(keys, torch.stack(pixels))


def _geometry(tokenizer: Tokenizer, counts: Counts) -> list[Geometry]:
    return [
        codebook_geometry(
            table.vectors(), counts[list(table.codebooks)].sum(axis=0), codebook=table.codebooks[0], fixed=table.fixed
        )
        for table in code_tables(tokenizer.quantizer)
    ]


def _reconstruction(
    runner: BatchedRunner, images: ImageCollection, tokens: TokenDataset, steps: _Steps
) -> Reconstruction | None:
    if not _measurable(tokens):
        return None
    size, fit = tokens.info.size, tokens.info.fit
    quality = measure(runner.tokenizer, images, size=size, fit=fit, batch_size=runner.batch_size)
    steps.add(2 * quality.images)
    return Reconstruction.model_validate(
        {"images": quality.images, "size": quality.size, "protocol": quality.protocol, **quality.values}
    )


def _measurable(tokens: TokenDataset) -> bool:
    """The images are large enough for every metric."""
    return all(tokens.info.size >= metric.smallest for metric in build_metrics())


def _pictures(
    runner: BatchedRunner, shown: _Sample, grids: Tensor, counts: Counts, *, originals: bool
) -> Visualisations:
    """Of images (n, 3, S, S) with their codes (n, h, w) or (n, h, w, Q)."""
    codes = most_used(counts[0])
    first = grids if runner.tokenizer.num_codebooks == 1 else grids[..., 0]
    patches, patch_counts = mean_patches(shown.pixels, first, codes)
    places = evenly_spaced(len(shown.keys), MOST_PAIRS).tolist()
    chosen = shown.pixels[places]
    return Visualisations(
        codes=codes,
        counts=counts[0][codes],
        swatches=swatches(runner, codes, counts),
        patches=patches,
        patch_counts=patch_counts,
        decoded=to_pixels(runner.decode(grids[places]) if originals else chosen),
        originals=to_pixels(chosen) if originals else None,
        keys=tuple(shown.keys[place] for place in places),
    )
