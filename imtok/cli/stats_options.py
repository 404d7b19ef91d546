"""What the options of `imtok stats` ask for together, and which of them do not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from imtok.cli.console import parse_shard
from imtok.errors import TokensError
from imtok.files import check_file_target, check_folder_target


@dataclass(frozen=True)
class Look:
    """Whether and how the tokenizer is looked at."""

    deep: bool
    tokenizer: Path | None
    images: tuple[str, ...]
    sample: int | None
    device: str | None
    tokens_only: bool

    @property
    def asked(self) -> bool:
        """By an option of its own."""
        return self.deep or self.tokenizer is not None or bool(self.images)


@dataclass(frozen=True)
class Results:
    """What is printed and written."""

    as_json: bool
    report: Path | None
    plots: Path | None

    @property
    def to_write(self) -> bool:
        """There is a file to write."""
        return self.report is not None or self.plots is not None


@dataclass(frozen=True)
class Part:
    """Which part of a token folder is counted, and into which file."""

    index: int
    of: int
    file: Path


@dataclass(frozen=True)
class Asked:
    """All that was asked for."""

    tokens: tuple[Path, ...]
    compare: bool
    merge: bool
    partial: bool
    workers: int | None
    part: Part | None
    look: Look
    results: Results

    @property
    def sets(self) -> tuple[Path, ...]:
        """The token folders, in the order given."""
        return self.tokens[:1] if self.merge else self.tokens

    @property
    def parts(self) -> tuple[Path, ...]:
        """Files to be added up in place of counting."""
        return self.tokens[1:] if self.merge else ()

    def tokenizer_of(self, folder: Path) -> Path | None:
        """Where the tokenizer to look at is, if at any; where nobody asked, a token folder without one will do."""
        if self.look.tokens_only or not (self.look.asked or self.results.to_write):
            return None
        if self.look.tokenizer is not None:
            return self.look.tokenizer
        return folder if self.look.asked or (folder / "tokenizer" / "config.json").is_file() else None


def part_of(shard: str | None, output: Path | None) -> Part | None:
    """The part that `--shard` and `-o` name; raises BadParameter where one is without the other, or not I/N."""
    if shard is None and output is None:
        return None
    if shard is None or output is None:
        raise typer.BadParameter("--shard I/N and -o PART go together", param_hint="--shard")
    return Part(*parse_shard(shard), output)


def check(asked: Asked) -> None:
    """Raise what can be told before anything is opened.

    That is BadParameter on options that do not go together, TokensError on what looks like an image among the token
    folders, and OSError where a result could not be written.
    """
    if asked.part is not None:
        _check_part(asked)
    _check_sets(asked)
    if asked.look.tokens_only and asked.look.asked:
        raise typer.BadParameter(
            "it leaves out what --deep, --tokenizer and --images are for", param_hint="--tokens-only"
        )
    if not (asked.look.asked or asked.results.to_write):
        for name, value in (("--sample", asked.look.sample), ("--device", asked.look.device)):
            if value is not None:
                raise typer.BadParameter("only where the tokenizer is looked at, as with --deep", param_hint=name)
    _check_targets(asked.results)


def _check_part(asked: Asked) -> None:
    if len(asked.tokens) > 1 or asked.compare or asked.merge:
        raise typer.BadParameter("parts are counted of one token folder at a time", param_hint="--shard")
    look, results = asked.look, asked.results
    given = {
        "--json": results.as_json,
        "--report": results.report is not None,
        "--plots": results.plots is not None,
        "--deep": look.deep,
        "--tokenizer": look.tokenizer is not None,
        "--images": bool(look.images),
        "--tokens-only": look.tokens_only,
        "--sample": look.sample is not None,
        "--device": look.device is not None,
    }
    surplus = ", ".join(name for name, is_given in given.items() if is_given)
    if surplus:
        raise typer.BadParameter(f"a part is only counted; give {surplus} with --merge", param_hint="--shard")


def _check_sets(asked: Asked) -> None:
    if asked.merge and asked.compare:
        raise typer.BadParameter("parts are added up of one token folder at a time", param_hint="--merge, --compare")
    if asked.merge and len(asked.tokens) < 2:
        raise typer.BadParameter(
            "expected one token folder and then its parts: TOKENS --merge PART...", param_hint="--merge"
        )
    if asked.compare and len(asked.tokens) < 2:
        raise typer.BadParameter("expected further token folders: TOKENS --compare OTHER...", param_hint="--compare")
    if asked.look.tokenizer is not None and len(asked.sets) > 1:
        raise typer.BadParameter("each of several token folders has its own", param_hint="--tokenizer")
    for path in asked.sets:
        if path.is_file():
            raise TokensError(
                f"{path}: a file, not a token folder; parts of --shard are added up by TOKENS --merge PART..."
            )
    for folder in asked.sets if asked.look.images and len(asked.tokens) > 1 else ():
        if not (folder / "imtok.json").is_file():
            raise TokensError(f"{folder}: not a token folder; if it holds images, give --images once for each SOURCE")


def _check_targets(results: Results) -> None:
    if results.report is not None:
        check_file_target(results.report)
    if results.plots is not None:
        check_folder_target(results.plots)
    if results.report is not None and results.report == results.plots:
        raise typer.BadParameter("a file and a directory cannot have one name", param_hint="--report, --plots")
