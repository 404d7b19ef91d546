"""The analysis job: a token folder to every figure there is of it."""

# Axes: K codes, Q codebooks, h x w grid.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imtok.analysis.advice import findings
from imtok.analysis.counting import count_tokens
from imtok.analysis.entropy import Counts
from imtok.analysis.figures import Figures, TokenizerFigures
from imtok.analysis.parts import merge_parts, places_of, write_part
from imtok.analysis.pictures import Pictures
from imtok.analysis.sampling import Sampling
from imtok.analysis.summary import figures_of, name_of, quantizer_config
from imtok.analysis.tally import Tally
from imtok.analysis.usage import CodebookUsage
from imtok.cores import usable_cores
from imtok.errors import Interrupted
from imtok.files import check_file_target
from imtok.tokens import TokenDataset, open_tokens

if TYPE_CHECKING:
    from imtok.data.collection import ImageCollection
    from imtok.tokenizer import Tokenizer

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
    tokens were made from, or others: for the figures that need pictures; with them the tokenizer in the token folder is
    looked at where no other is named. `progress` takes (what is being done, done, in
    all). Raises TokensError where the folder cannot be read or has units missing and `partial` is False, TokenizerError
    where the tokenizer is not the one of the tokens, SourceError where there are no such images, all before anything is
    counted; Interrupted once `should_stop` says so.
    """
    job = open_job(
        folder, partial=partial, parts=parts, tokenizer=tokenizer, images=images, sample=sample, device=device
    )
    return job.run(workers=workers, progress=progress, should_stop=should_stop)


def open_job(
    folder: str | Path,
    *,
    partial: bool = False,
    parts: Sequence[str | Path] = (),
    tokenizer: str | Path | None = None,
    images: Sequence[str | Path] = (),
    sample: int = _SAMPLE,
    device: str = "auto",
) -> Job:
    """What `analyze` would do, with all opened that it needs, so that mistakes are told before the work begins."""
    tokens = open_tokens(folder, partial=partial)
    if tokenizer is None and images:
        tokenizer = folder
    look = None
    if tokenizer is not None and len(tokens):
        look = _Look.open(tokens, tokenizer, images, sample, device)
    return Job(tokens, tuple(map(Path, parts)), look)


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

    def stage(self, name: str) -> Callable[[int, int], None]:
        """What takes (done, in all) of a stage."""

        def update(done: int, total: int) -> None:
            if self.progress:
                self.progress(name, done, total)
            self.check()

        return update


@dataclass(frozen=True, eq=False)
class _Look:
    """A tokenizer to be looked at beside its tokens."""

    tokenizer: Tokenizer
    name: str
    images: ImageCollection | None
    sample: int
    device: str

    @classmethod
    def open(
        cls, tokens: TokenDataset, path: str | Path, images: Sequence[str | Path], sample: int, device: str
    ) -> _Look:
        from imtok.analysis.inspection import check_tokenizer  # torch loads here: counting does without
        from imtok.data.collection import ImageCollection
        from imtok.devices import resolve_device
        from imtok.tokenizer import load

        resolve_device(device)
        given = ImageCollection.open(images) if images else None
        look = cls(load(path), name_of(path), given, sample, device)
        check_tokenizer(look.tokenizer, look.name, tokens, sample)
        return look

    def inspect(
        self, tokens: TokenDataset, counts: Counts, progress: Callable[[int, int], None]
    ) -> tuple[TokenizerFigures, Pictures]:
        from imtok.analysis.inspection import inspect_tokenizer

        return inspect_tokenizer(
            self.tokenizer,
            self.name,
            tokens,
            counts,
            images=self.images,
            sample=self.sample,
            device=self.device,
            progress=progress,
        )


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
            shown, pictures = self.look.inspect(tokens, tally.counts, watch.stage("looking at the tokenizer"))
        watch.check()
        usage = CodebookUsage.of_codebooks(tally.counts, tally.images)
        config = quantizer_config(tokens)
        figures = figures_of(tokens, tally, usage, config, shown, watch.check)
        figures = figures.model_copy(update={"findings": findings(figures, usage, config)})
        watch.check()
        return Analysis(figures, usage, pictures)


def _counted(tokens: TokenDataset, places: Sequence[int] | None, workers: int | None, watch: _Watch) -> Tally:
    return count_tokens(
        tokens,
        places=places,
        workers=workers or usable_cores(),
        sampling=Sampling.of(tokens),
        progress=watch.stage("counting"),
        should_stop=watch.should_stop,
    )
