"""`imtok stats`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import out, parse_shard, progress_bar, say, stop_on_signals

if TYPE_CHECKING:
    from imtok.analysis import Analysis
    from imtok.analysis.job import Progress

_LOOKING = "Looking at the tokenizer"
_WRITING = "Report"
_SIZE = "Large sets"


def stats(
    tokens: Annotated[list[Path], typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`.")],
    compare: Annotated[
        list[Path] | None, typer.Option(metavar="OTHER", help="Further token folders, side by side with the first.")
    ] = None,
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
        typer.Option("-t", "--tokenizer", help="One with the same fingerprint instead.", rich_help_panel=_LOOKING),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Images, those of the tokens or others: for quality, quantization error, reconstructions.",
            rich_help_panel=_LOOKING,
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="So many images go through the tokenizer.", rich_help_panel=_LOOKING)
    ] = 64,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU where there is one.", rich_help_panel=_LOOKING)
    ] = "auto",
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
        int | None, typer.Option(min=1, help="Threads that count. (default: all cores)", rich_help_panel=_SIZE)
    ] = None,
) -> None:
    """Tell whether the codebook is alive, from the tokens alone or with their tokenizer, and what to change.

    usage: share of the codes that occur. entropy: -sum p log2 p of the code shares, in bits a token, at most log2 of
    the codebook size. perplexity: 2^entropy, the number of equally frequent codes that would say as much. bits coded:
    what an adaptive coder needs. Every figure is defined, with its source, in docs/stats.md and in the report.
    """
    import imtok.analysis

    _check(tokens, compare, deep or tokenizer is not None or bool(images), tokens_only, tokenizer, shard, output, merge)
    with stop_on_signals() as should_stop, _progress() as progress:
        if shard is not None and output is not None:
            index, of = parse_shard(shard)
            counted = imtok.analysis.count_part(
                tokens[0],
                index,
                of,
                output,
                partial=partial,
                workers=workers,
                progress=progress,
                should_stop=should_stop,
            )
            say(f"{output}: {counted:,} images of part {index} of {of}; `--merge` adds the parts up")
            return
        looked_at = not tokens_only and (deep or tokenizer is not None or bool(images) or bool(report or plots))
        sets = [tokens[0]] if merge else [tokens[0], *(compare or []), *tokens[1:]]
        analyses = [
            imtok.analysis.analyze(
                folder,
                partial=partial,
                parts=tokens[1:] if merge else (),
                tokenizer=(tokenizer or _own(folder, asked=deep or bool(images))) if looked_at else None,
                images=images or (),
                sample=sample,
                device=device,
                workers=workers,
                progress=progress,
                should_stop=should_stop,
            )
            for folder in sets
        ]
        written = _write(analyses, report, plots)
    _show(analyses, as_json)
    for line in written:
        say(line)


def _check(
    tokens: Sequence[Path],
    compare: Sequence[Path] | None,
    looks: bool,
    tokens_only: bool,
    tokenizer: Path | None,
    shard: str | None,
    output: Path | None,
    merge: bool,
) -> None:
    """What the options mean together."""
    several = len(tokens) > 1 or bool(compare)
    if tokens_only and looks:
        raise typer.BadParameter(
            "it leaves out what --deep, --tokenizer and --images are for", param_hint="--tokens-only"
        )
    if (shard is None) != (output is None):
        raise typer.BadParameter("--shard I/N and -o PART go together", param_hint="--shard")
    if shard is not None and (several or merge):
        raise typer.BadParameter("parts are counted of one token folder at a time", param_hint="--shard")
    if merge and (compare or len(tokens) < 2):
        raise typer.BadParameter(
            "expected one token folder and then its parts: TOKENS --merge PART...", param_hint="--merge"
        )
    if tokenizer is not None and several and not merge:
        raise typer.BadParameter("each of several token folders has its own", param_hint="--tokenizer")


def _own(folder: Path, *, asked: bool) -> Path | None:
    """The folder whose tokenizer is looked at; where nobody asked for it, one without a tokenizer will do."""
    return folder if asked or (folder / "tokenizer" / "config.json").is_file() else None


def _write(analyses: Sequence[Analysis], report: Path | None, plots: Path | None) -> list[str]:
    """Write what was asked for; a line about each."""
    if not (report or plots):
        return []
    from imtok.report.writing import write_all_plots, write_report  # matplotlib loads here

    lines = []
    if report:
        write_report(report, [(each.figures, each.pictures) for each in analyses])
        lines.append(f"report in {report}")
    if plots:
        count = write_all_plots(plots, [(each.figures, each.pictures) for each in analyses])
        lines.append(f"{count} plots in {plots}")
    return lines


def _show(analyses: Sequence[Analysis], as_json: bool) -> None:
    figures = [each.figures for each in analyses]
    if as_json and len(figures) == 1:
        typer.echo(figures[0].model_dump_json())
    elif as_json:
        from imtok.analysis.comparison import comparison_dict

        typer.echo(json.dumps(comparison_dict(figures)))
    else:
        from imtok.cli.stats_view import print_comparison, print_figures

        if len(figures) == 1:
            print_figures(out(), figures[0])
        else:
            print_comparison(out(), figures)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each stage, one after the other."""
    units = {"counting": "shards", "looking at the tokenizer": "images"}
    bars: dict[str, Callable[[int, int | None], None]] = {}
    with ExitStack() as stack:

        def update(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()
                bars.clear()
                bars[stage] = stack.enter_context(progress_bar(stage, units[stage]))
            bars[stage](done, total)

        yield update
