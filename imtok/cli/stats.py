"""`imtok stats`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import ends_on_signals, out, progress_bar, say, stop_on_signals
from imtok.cli.stats_options import Asked, Look, Part, Results, check, part_of

if TYPE_CHECKING:
    from imtok.analysis import Analysis
    from imtok.analysis.job import Job, Progress, Stage

_LOOKING = "Looking at the tokenizer"
_WRITING = "Report"
_SIZE = "Large sets"


def stats(
    tokens: Annotated[
        list[Path], typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`; several are compared.")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="What follows TOKENS are further token folders, side by side with it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a token folder with units missing.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it as one HTML file.", rich_help_panel=_WRITING)
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write every plot as a PNG.", rich_help_panel=_WRITING)
    ] = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Look at the tokenizer in TOKENS too, as --report and --plots do.", rich_help_panel=_LOOKING
        ),
    ] = False,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "-t",
            "--tokenizer",
            help="Tokenizer to use instead of the copy in TOKENS; its fingerprint must match.",
            rich_help_panel=_LOOKING,
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Images, those of the tokens or others: for quality, quantization error, reconstructions. "
            "Once for each SOURCE.",
            rich_help_panel=_LOOKING,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Images to run through the tokenizer. (default: 64)", rich_help_panel=_LOOKING),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda or cuda:N. (default: a GPU where there is one)", rich_help_panel=_LOOKING),
    ] = None,
    tokens_only: Annotated[
        bool, typer.Option("--tokens-only", help="Leave the tokenizer out.", rich_help_panel=_LOOKING)
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Count only every N-th unit, from I = 0, into -o.", rich_help_panel=_SIZE),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PART", help="File for --shard.", rich_help_panel=_SIZE)
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="What follows TOKENS are files of --shard: add them up.", rich_help_panel=_SIZE),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that count a large set. (default: one a core)", rich_help_panel=_SIZE),
    ] = None,
) -> None:
    """Tell whether the codebook is alive, from the tokens alone or with their tokenizer, and what to change.

    usage: share of the codes that occur. entropy: -sum p log2 p of the code shares, in bits a token, at most log2 of
    the codebook size. perplexity: 2^entropy, the number of equally frequent codes that would say as much. bits coded:
    what an adaptive coder needs. The report ends with the definition and source of every figure.
    """
    asked = Asked(
        tokens=tuple(tokens),
        compare=compare,
        merge=merge,
        partial=partial,
        workers=workers,
        part=part_of(shard, output),
        look=Look(deep, tokenizer, tuple(images or ()), sample, device, tokens_only),
        results=Results(as_json, report, plots),
    )
    check(asked)
    with stop_on_signals() as should_stop, _progress() as progress:
        if asked.part is not None:
            _count(asked, asked.part, progress, should_stop)
            return
        with ends_on_signals(should_stop):
            jobs = _opened(asked)
        analyses = [job.run(workers=workers, progress=progress, should_stop=should_stop) for job in jobs]
        with ends_on_signals(should_stop):
            written = _write(analyses, asked.results)
    _show(analyses, as_json)
    for line in written:
        say(line)


def _count(asked: Asked, part: Part, progress: Progress, should_stop: Callable[[], bool]) -> None:
    from imtok.analysis import count_part

    counted = count_part(
        asked.tokens[0],
        part.index,
        part.of,
        part.file,
        partial=asked.partial,
        workers=asked.workers,
        progress=progress,
        should_stop=should_stop,
    )
    say(f"{part.file}: {counted:,} images of part {part.index} of {part.of}; `--merge` adds the parts up")


def _opened(asked: Asked) -> list[Job]:
    """What is to be done of each set, all opened before the first is counted."""
    from imtok.analysis.job import Options, open_job

    return [
        open_job(
            folder,
            Options(
                partial=asked.partial,
                parts=asked.parts,
                tokenizer=asked.tokenizer_of(folder),
                images=asked.look.images,
                sample=asked.look.sample or Options.sample,
                device=asked.look.device or Options.device,
            ),
        )
        for folder in asked.sets
    ]


def _write(analyses: Sequence[Analysis], results: Results) -> list[str]:
    """Write what was asked for; a line about each."""
    if not results.to_write:
        return []
    from imtok.report.writing import write_all_plots, write_report  # matplotlib loads here

    sets, lines = [(each.statistics, each.pictures) for each in analyses], []
    if results.report is not None:
        write_report(results.report, sets)
        lines.append(f"report in {results.report}")
    if results.plots is not None:
        count = write_all_plots(results.plots, sets)
        lines.append(f"{count} plots in {results.plots}")
    return lines


def _show(analyses: Sequence[Analysis], as_json: bool) -> None:
    statistics = [each.statistics for each in analyses]
    if as_json and len(statistics) == 1:
        typer.echo(statistics[0].model_dump_json())
    elif as_json:
        from imtok.analysis.comparison import comparison_dict

        typer.echo(json.dumps(comparison_dict(statistics)))
    else:
        from imtok.cli.stats_view import print_comparison, print_figures

        if len(statistics) == 1:
            print_figures(out(), statistics[0])
        else:
            print_comparison(out(), statistics)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each stage, one after the other."""
    from imtok.analysis.job import UNITS

    bars: dict[Stage, Callable[[int, int | None], None]] = {}
    with ExitStack() as stack:

        def update(stage: Stage, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()
                bars.clear()
                bars[stage] = stack.enter_context(progress_bar(stage, UNITS[stage]))
            bars[stage](done, total)

        yield update
