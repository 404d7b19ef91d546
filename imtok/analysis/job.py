"""The analysis job: from a token folder to all its statistics."""

# Axes: K codes, Q codebooks.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from imtok.analysis.counting import count_tokens
from imtok.analysis.sampling import Sampling
from imtok.analysis.statistics import Statistics, TokenizerStatistics
from imtok.analysis.summary import summarize
from imtok.analysis.visualisations import Visualisations
from imtok.cores import usable_cores
from imtok.data.containers import as_text
from imtok.entropy import Counts
from imtok.errors import Interrupted
from imtok.tokens import TokenDataset, open_tokens
from imtok.usage import CodebookUsage

Stage = Literal["counting", "testing the tokenizer"]
UNITS: dict[Stage, str] = {"counting": "shards", "testing the tokenizer": "images"}  # of the progress of each stage
Progress = Callable[[Stage, int, int], None]  # takes (stage, units done, units in all)

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
        self,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Compute all statistics; see `analyze`."""

        def check() -> None:
            if should_stop and should_stop():
                raise Interrupted(
                    f"{as_text(str(self.tokens.folder))}: stopped on request; the same command begins anew"
                )

        def update_of(stage: Stage) -> Callable[[int, int], None]:
            def update(done: int, total: int) -> None:
                if progress:
                    progress(stage, done, total)
                check()

            return update

        check()
        tally = count_tokens(
            self.tokens,
            workers=workers or usable_cores(),
            sampling=Sampling.of(self.tokens),
            progress=update_of("counting"),
        )
        statistics, pictures = None, None
        if self.diagnose is not None:
            statistics, pictures = self.diagnose(tally.counts, update_of("testing the tokenizer"))
        check()
        usage = CodebookUsage.of_codebooks(tally.counts, tally.images)
        summary = summarize(self.tokens, tally, usage, statistics, check)
        check()
        return Analysis(summary, usage, pictures)


def _open_tokenizer(path: str | Path, tokens: TokenDataset, options: Options) -> _Diagnose:
    # PyTorch loads here: the count needs none.
    from imtok.analysis.tokenizer_diagnostics import check_tokenizer, diagnose_tokenizer
    from imtok.data.collection import ImageCollection
    from imtok.devices import resolve_device
    from imtok.tokenizer import load

    resolve_device(options.device)
    images = ImageCollection.open(options.images) if options.images else None
    tokenizer, name = load(path), as_text(str(path))
    check_tokenizer(tokenizer, name, tokens, options.sample)
    return partial(
        diagnose_tokenizer, tokenizer, name, tokens, images=images, sample=options.sample, device=options.device
    )
