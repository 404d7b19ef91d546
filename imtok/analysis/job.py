"""The analysis job: from a token folder to all its statistics."""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from imtok.analysis import breakdowns
from imtok.analysis.counting import count_tokens
from imtok.analysis.diagnostics import findings
from imtok.analysis.neighbours import neighbours
from imtok.analysis.sampling import Sampling
from imtok.analysis.statistics import Bits, Neighbours, Statistics, TokenizerStatistics
from imtok.analysis.tally import Tally
from imtok.analysis.visualisations import Visualisations
from imtok.config import TokenizerConfig
from imtok.cores import usable_cores
from imtok.data.containers import as_text
from imtok.entropy import Counts, coded_bits
from imtok.errors import Interrupted
from imtok.tokens import TokenDataset, open_tokens
from imtok.tokens.folder import read_tokenizer_config
from imtok.tokens.label_counts import count_labels
from imtok.usage import CodebookUsage

Stage = Literal["counting", "testing the tokenizer"]
UNITS: dict[Stage, str] = {
    "counting": "shards",
    "testing the tokenizer": "image passes",
}  # of the progress of each stage
Progress = Callable[[Stage, int, int], None]  # takes (stage, units done, units in all)

_TOP = 8  # codes listed as the most used ones

# Takes (Q, K) counts, and a callback for (images done, images in all).
_Diagnose = Callable[[Counts, Callable[[int, int], None]], tuple[TokenizerStatistics, Visualisations]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """The result of `analyze`."""

    statistics: Statistics
    usage: CodebookUsage  # with the count of every code
    pictures: Visualisations | None  # where the tokenizer was analyzed too

    @property
    def figures(self) -> Statistics:
        """The statistics, under the name they had before."""
        return self.statistics


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `analyze` that decide about its result."""

    partial: bool = False
    tokenizer: str | Path | None = None
    images: Sequence[str | Path] = ()
    sample: int = 64
    device: str = "auto"


def analyze(
    folder: str | Path,
    *,
    partial: bool = Options.partial,
    tokenizer: str | Path | None = Options.tokenizer,
    images: Sequence[str | Path] = Options.images,
    sample: int = Options.sample,
    device: str = Options.device,
    workers: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Analysis:
    """Compute all statistics of a token folder; with a `tokenizer` folder also those of the tokenizer.

    `partial` accepts a folder with missing units. `images`, folders and tars, are the source of the tokens or others;
    they add the quality of reconstructions and the quantization error, and use the tokenizer in the token folder where
    `tokenizer` names no other. At most `sample` images go through the tokenizer. At most `workers` processes count, one
    a core by default.

    Raises TokensError where the folder cannot be read, TokenizerError where another tokenizer made the tokens, and
    SourceError where there are no such images, all before the count; Interrupted once `should_stop` returns True.
    """
    options = Options(partial=partial, tokenizer=tokenizer, images=images, sample=sample, device=device)
    return open_job(folder, options).run(workers=workers, progress=progress, should_stop=should_stop)


def open_job(folder: str | Path, options: Options) -> Job:
    """Open the tokens, the tokenizer and the images for `analyze`, which raises its errors here."""
    tokens = open_tokens(folder, partial=options.partial)
    tokenizer = folder if options.tokenizer is None and options.images else options.tokenizer
    diagnose = _open_tokenizer(tokenizer, tokens, options) if tokenizer is not None and len(tokens) else None
    return Job(tokens, diagnose)


@dataclass(frozen=True, eq=False)
class Job:
    """The analysis of a token set, ready to run."""

    tokens: TokenDataset
    diagnose: _Diagnose | None

    def run(
        self, *, workers: int | None, progress: Progress | None, should_stop: Callable[[], bool] | None
    ) -> Analysis:
        """Compute all statistics; see `analyze`."""
        name = as_text(str(self.tokens.store))

        def check() -> None:
            if should_stop and should_stop():
                raise Interrupted(f"{name}: stopped on request; the same command starts again")

        def update(stage: Stage, done: int, total: int) -> None:
            if progress:
                progress(stage, done, total)
            check()

        check()
        workers, sampling = workers or usable_cores(), Sampling.of(self.tokens)
        tally = count_tokens(self.tokens, workers=workers, sampling=sampling, progress=partial(update, "counting"))
        statistics, pictures = None, None
        if self.diagnose is not None:
            statistics, pictures = self.diagnose(tally.counts, partial(update, "testing the tokenizer"))
        check()
        with ThreadPoolExecutor(2, "imtok-stats") as pool:
            measure = partial(neighbours, counts=tally.counts, images=tally.images, sampling=sampling)
            right, below = pool.map(measure, tally.pairs)
        check()
        usage = CodebookUsage.of_codebooks(tally.counts, tally.images)
        summary = _summarize(self.tokens, tally, usage, right, below, statistics)
        check()
        return Analysis(summary, usage, pictures)


def _open_tokenizer(path: str | Path, tokens: TokenDataset, options: Options) -> _Diagnose:
    # PyTorch loads here: the count needs none.
    from imtok.analysis.tokenizer_diagnostics import check_tokenizer, diagnose_tokenizer
    from imtok.data.collection import ImageCollection
    from imtok.devices import resolve_device
    from imtok.tokens.tokenizer_copy import load_any

    resolve_device(options.device)
    images = ImageCollection.open(options.images) if options.images else None
    tokenizer, name, sample = load_any(path), as_text(str(path)), options.sample
    check_tokenizer(tokenizer, name, tokens, sample)
    return partial(diagnose_tokenizer, tokenizer, name, tokens, images=images, sample=sample, device=options.device)


def _summarize(
    tokens: TokenDataset,
    tally: Tally,
    usage: CodebookUsage,
    right: Neighbours | None,
    below: Neighbours | None,
    tokenizer: TokenizerStatistics | None,
) -> Statistics:
    """Compute all statistics and the findings."""
    tokenizer_config = _tokenizer_config(tokens)
    config = tokenizer_config.quantizer if tokenizer_config else None
    statistics = Statistics(
        **usage.as_use().model_dump(),
        name=as_text(str(tokens.store)),
        fingerprint=tokens.fingerprint,
        quantizer=config.summary if config else None,
        origin=tokenizer_config.origin if tokenizer_config else None,
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
        classes=breakdowns.class_use(tally, tokens.label_names),
        num_classes=len(count_labels(tokens).classes),
        duplicates=breakdowns.duplicates(tally, tokens.key),
        tokenizer=tokenizer,
        findings=[],
    )
    return statistics.model_copy(update={"findings": findings(statistics, usage, config)})


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


def _tokenizer_config(tokens: TokenDataset) -> TokenizerConfig | None:
    """Read the configuration of the tokenizer in the token folder; None where none can be read and fits the tokens."""
    config = read_tokenizer_config(tokens.store)
    if config is None:
        return None
    found = config.quantizer.num_codes, len(config.quantizer.codebook_ids)
    return config if found == (tokens.codebook_size, tokens.num_codebooks) else None
