"""The summary: the counts of a token set and the diagnostics of its tokenizer, as one record of statistics."""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from imtok.analysis import breakdowns
from imtok.analysis.diagnostics import findings
from imtok.analysis.neighbours import neighbours
from imtok.analysis.statistics import Bits, Neighbours, Statistics, TokenizerStatistics
from imtok.analysis.tally import Tally
from imtok.config import load_tokenizer_config
from imtok.data.containers import as_text
from imtok.entropy import Counts, coded_bits
from imtok.errors import ConfigError
from imtok.quantizers.record import QuantizerRecord
from imtok.tokens import TokenDataset
from imtok.tokens.folder import TOKENIZER
from imtok.usage import CodebookUsage

_TOP = 8


def summarize(
    tokens: TokenDataset,
    tally: Tally,
    usage: CodebookUsage,
    tokenizer: TokenizerStatistics | None,
    check: Callable[[], None],
) -> Statistics:
    """Compute all statistics and the findings; `check` is called between the steps and may raise to end it."""
    config = quantizer_config(tokens)
    right, below = _neighbours(tally)
    check()
    statistics = Statistics(
        **usage.as_use().model_dump(),
        name=as_text(str(tokens.folder)),
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
        dimensions=breakdowns.dimensions(tally.counts, config),
        classes=breakdowns.class_use(tally, tokens.class_names),
        duplicates=breakdowns.duplicates(tally, tokens.key),
        tokenizer=tokenizer,
        findings=[],
    )
    return statistics.model_copy(update={"findings": findings(statistics, usage, config)})


def _neighbours(tally: Tally) -> tuple[Neighbours | None, Neighbours | None]:
    """Measure the neighbours to the right and below."""
    sampling = tally.sampling
    assert sampling is not None  # pairs are counted by a sample alone
    with ThreadPoolExecutor(2, "imtok-stats") as pool:
        right, below = pool.map(lambda tables: neighbours(tables, tally.counts, tally.images, sampling), tally.pairs)
    return right, below


def _bits(tokens: TokenDataset, counts: Counts, right: Neighbours | None, below: Neighbours | None) -> Bits:
    height, width = tokens.grid
    raw = math.log2(tokens.codebook_size)
    total = int(counts.sum())
    each = sum(coded_bits(row) for row in counts) / total if total else raw
    coders = {"fixed": raw, "frequencies": each}
    if right:  # codes of the first column have no left neighbour
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


def quantizer_config(tokens: TokenDataset) -> QuantizerRecord | None:
    """Read the configuration of the quantizer in the token folder; None where none can be read and fits the tokens."""
    path = tokens.folder / TOKENIZER / "config.json"
    try:
        content = json.loads(path.read_bytes())
        values = {name: value for name, value in content.items() if name not in ("format", "version")}
        config = load_tokenizer_config(values, str(path)).quantizer
    except (OSError, ValueError, AttributeError, RecursionError, ConfigError):
        return None
    fits = (config.num_codes, len(config.codebook_ids)) == (tokens.codebook_size, tokens.num_codebooks)
    return config if fits else None
