"""Speed of every export of a token set over a plain copy of the same bytes, and whether the export reads back equal.

For each format, in turns: export the set, then copy the files of that export one by one. Both end when every file and
folder is on the disk (fsync), and both read from the page cache where memory is large enough. The disk should limit
both. Printed are medians over the rounds:

    export     tokens a second of the export, ids of all images and crops
    copy       tokens a second of the copy
    share      speed of the export over that of the copy
    files      of one export; formats with a file for each image are limited by the file system's rate of new files,
               and so is their copy
    read by    the library that owns the format, with its version, or imtok's own reader
    equal      every id, key and label that the format holds is that of the token set

    python benchmarks/exports.py TOKENS
    python benchmarks/exports.py TOKENS --formats megatron npy --shuffle 1 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import machine

from imtok.errors import ImtokError
from imtok.export import ExportOptions, ExportReport, export_tokens
from imtok.export.file_runs import names_in
from imtok.export.formats import FORMATS
from imtok.export.verification import ExportVerification, verify_export


@dataclass(frozen=True)
class Row:
    """The result of one format."""

    name: str
    files: int
    bytes: int
    export: list[float]  # seconds of each round
    copy: list[float]
    tokens: int
    check: ExportVerification

    @property
    def share(self) -> float:
        """Speed of the export over that of the copy."""
        return statistics.median(self.copy) / statistics.median(self.export)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", help="a token folder")
    parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shuffle", type=int, help="seed; default: input order")
    parser.add_argument("--val-fraction", type=float, default=0.0)
    parser.add_argument(
        "--scratch", type=Path, help="folder on the disk to measure; default: the system's for temporaries"
    )
    arguments = parser.parse_args()
    options = ExportOptions(shuffle=arguments.shuffle, val_fraction=arguments.val_fraction)
    print(f"{'format':<11}{'files':>8}{'MB':>9}{'export':>13}{'copy':>13}{'share':>7}  {'equal':<6}read by")
    rows = []
    for name in arguments.formats:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            try:
                rows.append(measure(arguments.tokens, name, options, Path(scratch), arguments.rounds))
            except ImtokError as error:  # a format that cannot hold this set
                print(f"{name:<11}{error}")
                continue
        print(line(rows[-1]), flush=True)
    facts = {
        "images": rows[0].check.images if rows else 0,
        "options": options.given,
        "rounds": arguments.rounds,
        "formats": {row.name: described(row) for row in rows},
    }
    print(json.dumps({"benchmark": "exports", **facts, **machine(torch.device("cpu"), "numpy")}))


def measure(tokens: str, name: str, options: ExportOptions, scratch: Path, rounds: int) -> Row:
    """Export, copy and read back in one format; raises ImtokError where it cannot hold the token set."""
    refused = FORMATS[name].refused & set(options.given)
    options = options.model_copy(update={field: ExportOptions.model_fields[field].default for field in refused})
    export, copy, warm = scratch / "export", scratch / "copy", scratch / "warm"
    export_tokens(tokens, warm, name, options)  # imports of libraries, and the token set into the page cache
    shutil.rmtree(warm)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for folder in (export, copy):
            shutil.rmtree(folder, ignore_errors=True)
        began = time.perf_counter()
        report = export_tokens(tokens, export, name, options)
        seconds[0].append(time.perf_counter() - began)
        began = time.perf_counter()
        copy_files(export, copy, [name for file in report.record.files for name in names_in(file.path)])
        seconds[1].append(time.perf_counter() - began)
    return Row(
        name=name,
        files=report.record.num_files,
        bytes=sum(file.bytes for file in report.record.files),
        export=seconds[0],
        copy=seconds[1],
        tokens=tokens_of(report),
        check=verify_export(export, tokens),
    )


def tokens_of(report: ExportReport) -> int:
    plan = report.plan
    return plan.total * plan.crops * plan.ids_per_image


def copy_files(source: Path, target: Path, paths: Sequence[str]) -> None:
    """Copy files and put them on the disk, and the folders that they lie in."""
    folders = {target}
    for path in paths:
        copied = target / path
        if copied.parent not in folders:
            folders.add(copied.parent)
        copied.parent.mkdir(parents=True, exist_ok=True)
        with (source / path).open("rb") as read, copied.open("wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def line(row: Row) -> str:
    speeds = (row.tokens / statistics.median(seconds) for seconds in (row.export, row.copy))
    export, copy = (f"{speed / 1e6:,.1f} M/s" for speed in speeds)
    equal = "yes" if row.check.ok else "NO"
    size = f"{row.bytes / 1e6:,.1f}"
    return (
        f"{row.name:<11}{row.files:>8,}{size:>9}{export:>13}{copy:>13}{row.share:>7.2f}  {equal:<6}{row.check.reader}"
    )


def described(row: Row) -> dict[str, object]:
    return {
        "files": row.files,
        "bytes": row.bytes,
        "export_seconds": [round(each, 4) for each in row.export],
        "copy_seconds": [round(each, 4) for each in row.copy],
        "tokens": row.tokens,
        "share": round(row.share, 3),
        "read_by": row.check.reader,
        "compared": row.check.compared,
        "equal": row.check.ok,
        "problems": row.check.problems[:3],
    }


if __name__ == "__main__":
    main()
