"""Time of `imtok stats` on a billion tokens, against reading them and one pass of numpy's bincount.

The script writes a token folder of 16-bit codes (2 GB for a billion; it stays in the page cache). As in tokens of
images, codes are unevenly used and each row of the grid resembles the row above. The steps are measured in turn, so
that a drift of the machine meets all alike:

    read       the bytes of every shard into one buffer
    bincount   the same, and numpy's bincount over each shard, on one core: the simplest script
    counts     `codebook_usage`: the counts of every code, and nothing else, on all cores
    analyze    `analyze`: all statistics of `imtok stats`

The memory traffic of adding one at a random index of a table should limit `counts`, which all cores do at once. The
counts are compared with those of bincount before the clock starts.

    python benchmarks/stats_throughput.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from imtok.analysis import analyze, codebook_usage
from imtok.cores import usable_cores
from imtok.tokens import (
    Numerics,
    PackedStrings,
    Shard,
    ShardHeader,
    TokenDataset,
    TokensInfo,
    open_tokens,
    shard_to_bytes,
)
from imtok.tokens.folder import INFO, MANIFEST, manifest_entry, manifest_to_bytes, shard_path
from imtok.tokens.plan import plan_path

_SIDE = 16  # codes down and across
_UNIT = 2048  # images


def main() -> None:
    args = parse()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        tokens = written(Path(scratch) / "tokens", args.tokens, args.codebook_size)
        steps = make_steps(tokens)
        assert np.array_equal(steps["bincount"](), steps["counts"]()), "the counts differ"
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)
    report(seconds, len(tokens) * _SIDE * _SIDE, vars(args))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10**9)
    parser.add_argument("--codebook-size", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", help="folder with room for the tokens; the system's own by default")
    return parser.parse_args()


def make_steps(tokens: TokenDataset) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, by name."""
    paths = [tokens.shard_path(unit) for unit in range(len(tokens.units))]
    longest = max(path.stat().st_size for path in paths)
    buffer = np.empty(longest, np.uint8)

    def read() -> None:
        for path in paths:
            with path.open("rb", buffering=0) as file:
                file.readinto(buffer)

    def bincount() -> Any:
        counts = np.zeros(tokens.codebook_size, np.int64)
        for unit, path in enumerate(paths):
            with path.open("rb", buffering=0) as file:
                file.readinto(buffer)
            start, size = code_bytes[unit]
            counts += np.bincount(buffer[start : start + size].view(np.uint16), minlength=tokens.codebook_size)
        return counts

    code_bytes = [_code_bytes(path) for path in paths]
    return {
        "read": read,
        "bincount": bincount,
        "counts": lambda: codebook_usage(tokens).counts,
        "analyze": lambda: analyze(tokens.folder),
    }


def written(folder: Path, tokens: int, codebook_size: int) -> TokenDataset:
    """Write a token folder of about so many tokens."""
    units = max(1, round(tokens / (_UNIT * _SIDE * _SIDE)))
    info = TokensInfo(
        fingerprint="f" * 64,
        codebook_size=codebook_size,
        num_codebooks=1,
        index_order=None,
        grid=(_SIDE, _SIDE),
        downsample=16,
        size=256,
        fit="crop",
        numerics=Numerics(device="cpu", precision="fp32", batch_size=16, threads=1, versions={}),
        units=units,
        unit_size=_UNIT,
        images=units * _UNIT,
        tars=0,
        class_names=(),
        plan=hashlib.sha256(b"").hexdigest(),
    )
    values, entries = np.random.default_rng(0), []
    shares = np.arange(1, codebook_size + 1) ** -0.6
    drawn = np.searchsorted(np.cumsum(shares) / shares.sum(), np.linspace(0, 1, 2**20, endpoint=False))
    drawn = values.permutation(codebook_size)[drawn].astype(np.uint16)  # a draw is a look-up
    for unit in range(units):
        codes = drawn[values.integers(0, 2**20, (_UNIT, _SIDE, _SIDE), np.uint32)]
        same = values.random((_UNIT, _SIDE - 1, _SIDE)) < 0.3
        codes[:, 1:][same] = codes[:, :-1][same]
        shard = _shard(unit, codes, codebook_size)
        data = shard_to_bytes(shard)
        path = folder / shard_path(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        entries.append(manifest_entry(shard, data))
    (folder / plan_path()).parent.mkdir()
    (folder / plan_path()).write_bytes(b"")
    (folder / INFO).write_bytes(info.to_bytes())
    (folder / MANIFEST).write_bytes(manifest_to_bytes(entries))
    return open_tokens(folder)


def _shard(unit: int, codes: Any, codebook_size: int) -> Shard:
    none = PackedStrings.pack([])
    return Shard(
        header=ShardHeader(unit=unit, inputs=len(codes), fingerprint="f" * 64, codebook_size=codebook_size),
        codes=codes,
        keys=PackedStrings.pack(f"{unit:06d}/{number:04d}.jpg" for number in range(len(codes))),
        index=np.arange(len(codes)),
        original_size=np.full((len(codes), 2), 256, np.int32),
        labels=None,
        skip_index=np.empty(0, np.int64),
        skip_keys=none,
        skip_reasons=none,
    )


def _code_bytes(path: Path) -> tuple[int, int]:
    """Return the offset of the codes in a shard, and their bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))["codes"]["data_offsets"]
    return 8 + length + begin, end - begin


def report(seconds: dict[str, list[float]], tokens: int, settings: dict[str, Any]) -> None:
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"{tokens:,} tokens of {settings['codebook_size']:,} codes, {usable_cores()} cores")
    print(f"{'':10} {'seconds':>8} {'spread':>14} {'ns a token':>11} {'over bincount':>14}")
    for name, each in seconds.items():
        spread = f"{min(each):.2f} to {max(each):.2f}"
        over = medians[name] / medians["bincount"]
        print(f"{name:10} {medians[name]:8.2f} {spread:>14} {medians[name] / tokens * 1e9:11.2f} {over:14.2f}")
    print(
        json.dumps(
            {"seconds": seconds, "tokens": tokens, "settings": settings, **machine(torch.device("cpu"), "numpy")}
        )
    )


if __name__ == "__main__":
    main()
