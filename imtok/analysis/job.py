"""The analysis job: a token folder to every figure there is of it."""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imtok.analysis.counting import count_tokens
from imtok.analysis.parts import merge_parts, places_of, write_part
from imtok.analysis.sampling import Sampling
from imtok.analysis.statistics import Statistics, TokenizerStatistics
from imtok.analysis.summary import name_of, statistics_of
from imtok.analysis.tally import Tally
from imtok.analysis.visualisations import Visualisations
from imtok.cores import usable_cores
from imtok.entropy import Counts
from imtok.errors import Interrupted
from imtok.files import check_file_target
from imtok.tokens import TokenDataset, open_tokens
from imtok.usage import CodebookUsage

Stage = Literal["counting", "adding up parts", "looking at the tokenizer"]
UNITS: dict[Stage, str] = {  # what is counted in each
    "counting": "shards",
    "adding up parts": "parts",
    "looking at the tokenizer": "images",
}
Progress = Callable[[Stage, int, int], None]

# (Q, K) counts, and what takes (done, in all) -> what the tokenizer shows.
_Look = Callable[[Counts, Callable[[int, int], None]], tuple[TokenizerStatistics, Visualisations]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found of a token set."""

    statistics: Statistics
    usage: CodebookUsage  # with the count of every code
    pictures: Visualisations | None  # where the tokenizer was looked at


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is read beside the tokens, and how the tokenizer is looked at; `analyze` says what each means."""

    partial: bool = False
    parts: Sequence[str | Path] = ()
    tokenizer: str | Path | None = None
    images: Sequence[str | Path] = ()
    sample: int = 64
    device: str = "auto"


def analyze(
    folder: str | Path,
    *,
    partial: bool = Options.partial,
    parts: Sequence[str | Path] = Options.parts,
    tokenizer: str | Path | None = Options.tokenizer,
    images: Sequence[str | Path] = Options.images,
    sample: int = Options.sample,
    device: str = Options.device,
    workers: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Analysis:
    """Every figure of a token folder; with a `tokenizer` folder also those of the tokenizer, on `sample` images.

    `parts` are files of `count_part`, to be merged in place of counting. `images`, folders and tars, hold what the
    tokens were made from, or others: for the figures that need pictures; with them the tokenizer in the token folder is
    looked at where no other is named. `progress` takes (what is being done, done, in all), in the units of `UNITS`.
    Raises TokensError where the folder cannot be read or has units missing and `partial` is False, TokenizerError
    where the tokenizer is not the one of the tokens, SourceError where there are no such images, all before anything is
    counted; Interrupted once `should_stop` says so.
    """
    options = Options(partial=partial, parts=parts, tokenizer=tokenizer, images=images, sample=sample, device=device)
    return open_job(folder, options).run(workers=workers, progress=progress, should_stop=should_stop)


def open_job(folder: str | Path, options: Options) -> Job:
    """What `analyze` would do, with all opened that it needs, so that mistakes are told before the work begins."""
    tokens = open_tokens(folder, partial=options.partial)
    tokenizer = folder if options.tokenizer is None and options.images else options.tokenizer
    look = _opened(tokenizer, tokens, options) if tokenizer is not None and len(tokens) else None
    return Job(tokens, tuple(map(Path, options.parts)), look)


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
    """Count part `index` of `of` of a token folder into the file `output`; how many images that were.

    Raises ConfigError where there is no such part, and OSError where `output` cannot be written, before it counts.
    """
    output = Path(output)
    check_file_target(output)
    tokens = open_tokens(folder, partial=partial)
    watch = _Watch(tokens.folder, progress, should_stop)
    tally = _counted(tokens, places_of(tokens, index, of), workers, watch)
    watch.check()
    write_part(output, tally, tokens, index, of)
    return tally.images


@dataclass(frozen=True)
class _Watch:
    """Who is told how far the work is, and may end it."""

    folder: Path
    progress: Progress | None
    should_stop: Callable[[], bool] | None

    def check(self) -> None:
        """Raise Interrupted where it is to end."""
        if self.should_stop and self.should_stop():
            raise Interrupted(f"{name_of(self.folder)}: stopped on request; the same command begins anew")

    def stage(self, name: Stage) -> Callable[[int, int], None]:
        """What takes (done, in all) of a stage."""

        def update(done: int, total: int) -> None:
            if self.progress:
                self.progress(name, done, total)
            self.check()

        return update


def _opened(path: str | Path, tokens: TokenDataset, options: Options) -> _Look:
    from imtok.analysis.tokenizer_diagnostics import (  # torch loads here: counting does without
        check_tokenizer,
        inspect_tokenizer,
    )
    from imtok.data.collection import ImageCollection
    from imtok.devices import resolve_device
    from imtok.tokenizer import load

    resolve_device(options.device)
    images = ImageCollection.open(options.images) if options.images else None
    tokenizer, name = load(path), name_of(path)
    check_tokenizer(tokenizer, name, tokens, options.sample)

    def look(counts: Counts, progress: Callable[[int, int], None]) -> tuple[TokenizerStatistics, Visualisations]:
        return inspect_tokenizer(
            tokenizer,
            name,
            tokens,
            counts,
            images=images,
            sample=options.sample,
            device=options.device,
            progress=progress,
        )

    return look


@dataclass(frozen=True, eq=False)
class Job:
    """The analysis of a token set, ready to be run."""

    tokens: TokenDataset
    parts: tuple[Path, ...]
    look: _Look | None

    def run(
        self,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Analysis:
        """Every figure; see `analyze`."""
        tokens, watch = self.tokens, _Watch(self.tokens.folder, progress, should_stop)
        watch.check()
        if self.parts:
            tally = merge_parts(self.parts, tokens, watch.stage("adding up parts"))
        else:
            tally = _counted(tokens, None, workers, watch)
        shown, pictures = None, None
        if self.look is not None:
            shown, pictures = self.look(tally.counts, watch.stage("looking at the tokenizer"))
        watch.check()
        usage = CodebookUsage.of_codebooks(tally.counts, tally.images)
        statistics = statistics_of(tokens, tally, usage, shown, watch.check)
        watch.check()
        return Analysis(statistics, usage, pictures)


def _counted(tokens: TokenDataset, places: Sequence[int] | None, workers: int | None, watch: _Watch) -> Tally:
    return count_tokens(
        tokens,
        places=places,
        workers=workers or usable_cores(),
        sampling=Sampling.of(tokens),
        progress=watch.stage("counting"),
    )
