"""`imtok stats`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial as with_preset
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imtok.cli.console import ends_on_signals, out, progress_bar, say, stop_on_signals
from imtok.cli.options import AsJson, Partial
from imtok.data.addresses import is_remote
from imtok.errors import TokensError
from imtok.files import check_file_target, check_folder_target

if TYPE_CHECKING:
    from imtok.analysis import Analysis
    from imtok.analysis.job import Progress, Stage
    from imtok.analysis.statistics import Statistics

_file_option = with_preset(typer.Option, rich_help_panel="Report")
_deep_option = with_preset(typer.Option, rich_help_panel="Tokenizer diagnostics")


def stats(
    tokens: Annotated[
        list[str], typer.Argument(metavar="TOKENS", help="Folder written by `imtok encode`, or several.")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare TOKENS with the token folders that follow.")
    ] = False,
    as_json: AsJson = False,
    partial: Partial = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that count. (default: one for each core)")
    ] = None,
    report: Annotated[
        Path | None, _file_option(metavar="FILE", help="Write all statistics and plots as one HTML file.")
    ] = None,
    plots: Annotated[Path | None, _file_option(metavar="DIR", help="Write every plot as a PNG.")] = None,
    deep: Annotated[bool, _deep_option("--deep", help="Run these diagnostics, as --report and --plots do.")] = False,
    tokenizer: Annotated[
        str | None,
        _deep_option(
            "-t",
            "--tokenizer",
            help="Replaces the copy in TOKENS, also as hf://ORG/NAME; its fingerprint must match.",
        ),
    ] = None,
    images: Annotated[
        list[str] | None, _deep_option(metavar="SOURCE", help="Images to measure on; may be given several times.")
    ] = None,
    sample: Annotated[int | None, _deep_option(min=1, help="Images in these diagnostics. (default: 64)")] = None,
    device: Annotated[str | None, _deep_option(help="cpu, cuda or cuda:N. (default: a GPU where there is one)")] = None,
    tokens_only: Annotated[bool, _deep_option("--tokens-only", help="Leave the tokenizer out.")] = False,
) -> None:
    """Report whether the codebook is alive, from the tokens alone or with their tokenizer, and what to change.

    usage: share of the codes that occur. entropy: -sum p log2 p of the code shares, in bits a token, at most log2 of
    the codebook size. perplexity: 2^entropy, the number of equally frequent codes that would carry as much. bits coded:
    what an adaptive coder needs. The report ends with the definition and source of every statistic.
    """
    deep = deep or tokenizer is not None or bool(images)
    uses_tokenizer = deep or report is not None or plots is not None
    _refuse(
        (compare and len(tokens) < 2, "--compare", "expected further token folders: TOKENS --compare OTHER..."),
        (tokenizer is not None and len(tokens) > 1, "--tokenizer", "each of several token folders has its own"),
        (tokens_only and deep, "--tokens-only", "it leaves out what --deep, --tokenizer and --images are for"),
        (bool(sample or device) and not uses_tokenizer, "--sample, --device", "only for diagnostics, as with --deep"),
        (report is not None and report == plots, "--report, --plots", "a file and a directory cannot have one name"),
    )
    _check_paths(tokens if images else [], report, plots)
    from imtok.analysis.job import Options, open_job

    sample, device = sample or Options.sample, device or Options.device
    options = Options(partial=partial, images=images or (), sample=sample, device=device)
    runs_tokenizer = uses_tokenizer and not tokens_only
    with stop_on_signals() as should_stop, _progress() as progress:
        with ends_on_signals(should_stop):
            jobs = []  # all opened before the first is counted
            for folder in tokens:
                own = _tokenizer_of(folder, tokenizer, required=deep) if runs_tokenizer else None
                jobs.append(open_job(folder, replace(options, tokenizer=own)))
        analyses = [job.run(workers=workers, progress=progress, should_stop=should_stop) for job in jobs]
        with ends_on_signals(should_stop):
            written = list(_write(analyses, report, plots))
    _print([each.statistics for each in analyses], as_json)
    for job in jobs:
        if job.tokens.num_crops > 1:
            say(f"{job.tokens.folder}: the statistics are of the first of {job.tokens.num_crops} crops of each image")
    for line in written:
        say(line)


def _refuse(*rules: tuple[bool, str, str]) -> None:
    """Raise BadParameter for the first rule, (broken, option, message), that is broken."""
    for broken, option, message in rules:
        if broken:
            raise typer.BadParameter(message, param_hint=option)


def _check_paths(folders: Sequence[str], report: Path | None, plots: Path | None) -> None:
    """Raise TokensError for an image folder among token folders, OSError for a file that cannot be written."""
    for folder in folders if len(folders) > 1 else ():
        if not is_remote(folder) and not (Path(folder) / "imtok.json").is_file():
            raise TokensError(f"{folder}: not a token folder; if it holds images, give --images once for each SOURCE")
    for check, path in ((check_file_target, report), (check_folder_target, plots)):
        if path is not None:
            check(path)


def _tokenizer_of(folder: str, tokenizer: str | None, *, required: bool) -> str | Path | None:
    """Return the tokenizer of a token folder; None where the folder has none and none is required."""
    from imtok.tokens.tokenizer_copy import has_copy  # torch loads here: only for those who use the tokenizer

    if tokenizer is None and (required or has_copy(folder)):
        return folder
    return tokenizer


def _write(analyses: Sequence[Analysis], report: Path | None, plots: Path | None) -> Iterator[str]:
    """Write the requested files; yield a line about each."""
    if report is None and plots is None:
        return
    from imtok.report.pages import write_report  # matplotlib loads here
    from imtok.report.plots import write_all_plots

    sets = [(each.statistics, each.pictures) for each in analyses]
    if report is not None:
        write_report(report, sets)
        yield f"report in {report}"
    if plots is not None:
        yield f"{write_all_plots(plots, sets)} plots in {plots}"


def _print(sets: Sequence[Statistics], as_json: bool) -> None:
    if as_json:
        from imtok.analysis.comparison import comparison_dict

        typer.echo(sets[0].model_dump_json() if len(sets) == 1 else json.dumps(comparison_dict(sets)))
    else:
        from imtok.cli.stats_view import print_sets

        print_sets(out(), sets)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar for each stage, one after the other."""
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
