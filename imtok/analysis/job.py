"""The analysis job: a token folder to every figure there is of it."""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imtok.analysis import breakdowns
from imtok.analysis.advice import findings
from imtok.analysis.counting import count_tokens
from imtok.analysis.entropy import Counts, coded_bits
from imtok.analysis.figures import Bits, Figures, Neighbours, TokenizerFigures
from imtok.analysis.neighbours import neighbours
from imtok.analysis.parts import merge_parts, places_of, write_part
from imtok.analysis.pictures import Pictures
from imtok.analysis.sampling import Sampling
from imtok.analysis.tally import Tally
from imtok.analysis.usage import CodebookUsage
from imtok.config import load_tokenizer_config
from imtok.cores import usable_cores
from imtok.errors import ConfigError
from imtok.quantizer_config import QuantizerConfig
from imtok.tokens import TokenDataset, open_tokens
from imtok.tokens.folder import TOKENIZER

_TOP = 8
_SAMPLE = 64  # images that go through the tokenizer

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found of a token set."""

    figures: Figures
    usage: CodebookUsage  # with the count of every code
    pictures: Pictures | None  # where the tokenizer was looked at


def analyze(
    folder: str | Path,
    *,
    partial: bool = False,
    parts: Sequence[str | Path] = (),
    tokenizer: str | Path | None = None,
    images: Sequence[str | Path] = (),
    sample: int = _SAMPLE,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Analysis:
    """Every figure of a token folder; with a `tokenizer` folder also those of the tokenizer, on `sample` images.

    `parts` are files of `count_part`, to be merged in place of counting. `images`, folders and tars, hold what the
    tokens were made from, or others: for the figures that need pictures. `progress` takes (what is being done, done, in
    all). Raises TokensError where the folder cannot be read or has units missing and `partial` is False, TokenizerError
    where the tokenizer is not the one of the tokens, Interrupted once `should_stop` says so.
    """
    tokens = open_tokens(folder, partial=partial)
    if parts:
        tally = merge_parts([Path(part) for part in parts], tokens)
    else:
        tally = _counted(tokens, None, workers, progress, should_stop)
    usage = CodebookUsage.of_codebooks(tally.counts, tally.images)
    shown, pictures = None, None
    if tokenizer is not None and tally.images:
        shown, pictures = _inspected(tokens, tally.counts, tokenizer, images, sample, device, progress)
    config = _quantizer_config(tokens.folder)
    figures = _figures(tokens, tally, usage, config, shown)
    figures = figures.model_copy(update={"findings": findings(figures, usage, config)})
    return Analysis(figures, usage, pictures)


def count_part(
    folder: str | Path,
    index: int,
    of: int,
    output: str | Path,
    *,
    partial: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> int:
    """Count part `index` of `of` of a token folder into the file `output`; how many images that were."""
    tokens = open_tokens(folder, partial=partial)
    tally = _counted(tokens, places_of(tokens, index, of), workers, progress, should_stop)
    write_part(Path(output), tally, tokens, index, of)
    return tally.images


def _counted(
    tokens: TokenDataset,
    places: Sequence[int] | None,
    workers: int | None,
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> Tally:
    def update(done: int, total: int) -> None:
        if progress:
            progress("counting", done, total)

    return count_tokens(
        tokens,
        places=places,
        workers=workers or usable_cores(),
        sampling=Sampling.of(tokens),
        progress=update,
        should_stop=should_stop,
    )


def _inspected(
    tokens: TokenDataset,
    counts: Counts,
    path: str | Path,
    images: Sequence[str | Path],
    sample: int,
    device: str,
    progress: Progress | None,
) -> tuple[TokenizerFigures, Pictures]:
    from imtok.analysis.inspection import inspect_tokenizer  # torch loads here: counting does without
    from imtok.data.collection import ImageCollection
    from imtok.tokenizer import load

    def update(done: int, total: int) -> None:
        if progress:
            progress("looking at the tokenizer", done, total)

    given = ImageCollection.open(images) if images else None
    return inspect_tokenizer(
        load(path), str(path), tokens, counts, images=given, sample=sample, device=device, progress=update
    )


def _figures(
    tokens: TokenDataset,
    tally: Tally,
    usage: CodebookUsage,
    config: QuantizerConfig | None,
    tokenizer: TokenizerFigures | None,
) -> Figures:
    sampling = Sampling.of(tokens)
    with ThreadPoolExecutor(2, "imtok-stats") as pool:
        right, below = pool.map(lambda tables: neighbours(tables, tally.counts, len(tokens), sampling), tally.pairs)
    return Figures(
        **usage.as_use().model_dump(),
        name=str(tokens.folder),
        fingerprint=tokens.fingerprint,
        quantizer=config.summary if config else None,
        images=tally.images,
        skipped=tokens.skipped,
        size=tokens.info.size,
        grid=tokens.grid,
        codebook_size=tokens.codebook_size,
        num_codebooks=tokens.num_codebooks,
        max_bits=usage.max_bits,
        codebooks=[each.as_use() for each in usage.codebooks],
        per_256_images=breakdowns.runs_of_images(tally),
        top=usage.top(_TOP),
        frequency=usage.by_frequency(),
        rank_frequency=usage.by_rank(),
        growth=breakdowns.growth(tally),
        bits=_bits(tokens, tally.counts, right, below),
        positions=breakdowns.position_map(tally),
        horizontal=right,
        vertical=below,
        dimensions=breakdowns.dimensions(tally.counts, config.leaf if config else None),
        classes=breakdowns.class_use(tally, tokens.class_names),
        duplicates=breakdowns.duplicates(tally, tokens.key),
        tokenizer=tokenizer,
        findings=[],
    )


def _bits(tokens: TokenDataset, counts: Counts, right: Neighbours | None, below: Neighbours | None) -> Bits:
    height, width = tokens.grid
    raw = math.log2(tokens.codebook_size)
    total = int(counts.sum())
    each = sum(coded_bits(row) for row in counts) / total if total else raw
    coders = {"fixed": raw, "frequencies": each}
    if right:  # codes of the first column have no left neighbour and are coded without
        coders["left neighbour"] = right.coded_bits + (each - right.coded_bits) / width
    if below:
        coders["neighbour above"] = below.coded_bits + (each - below.coded_bits) / height
    coder = min(coders, key=lambda name: coders[name])
    per_image, pixels = height * width * tokens.num_codebooks, tokens.info.size**2
    return Bits(
        raw_per_token=raw,
        raw_per_image=raw * per_image,
        raw_per_pixel=raw * per_image / pixels,
        coded_per_token=coders[coder],
        coded_per_image=coders[coder] * per_image,
        coded_per_pixel=coders[coder] * per_image / pixels,
        coder=coder,
    )


def _quantizer_config(folder: Path) -> QuantizerConfig | None:
    """Of the tokenizer that lies in the token folder; None where there is none that can be read."""
    path = folder / TOKENIZER / "config.json"
    try:
        content = json.loads(path.read_bytes())
        values = {name: value for name, value in content.items() if name not in ("format", "version")}
        return load_tokenizer_config(values, str(path)).quantizer
    except (OSError, ValueError, AttributeError, ConfigError):
        return None
