"""Time and memory of a plan of many images: from the sources to the published list of inputs and its hash.

Each row is a process of its own. It takes the steps of `imtok encode` that come before the first image is read, with
a small tokenizer on the CPU, and prints

    seconds    the time until the job could begin
    CPU s      the CPU time of all its threads, user and system
    peak MB    the highest resident memory of the whole process, with Python and PyTorch in it (VmHWM of Linux)
    start MB   the resident memory before the plan begins, which has no part in the images

The steps:

    begin      a new token folder: list the sources, find labels, write imtok.json and plan/inputs-00000.jsonl
    resume     the same command again: list the sources, and compare them with the plan by its hash
    grow       the same command after a tenth more images came into the same folders: divide the inputs into those that
               the plan lists and new ones, and publish plan/inputs-00001.jsonl
    regrow     the same command again, with a plan in two lists

The sources are those of a simulated storage, which makes up names and sizes and opens no file:

    classes    1000 images in each folder, as a data set of classes has them
    flat       all images in one folder, which is listed in order
    shuffled   all images in one folder, which is listed in another order, as a disk does

or a list of URLs, none of which is asked for:

    urls       a line of 60 bytes for each image, in order
    signed     lines of 310 bytes, each with a signature of its own, in order
    unordered  those of `urls`, in another order

Listing takes longer on a real disk or an object store, by the time that they need for it.

    python benchmarks/planning.py
    python benchmarks/planning.py --images 1000000 --sources classes
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from machine import machine

from imtok.config import NetworkConfig, TokenizerConfig
from imtok.data.address_lists import AddressList
from imtok.data.remote_files import RemoteFiles
from imtok.data.storage import STORAGES, Entry, Kind
from imtok.encoding.settings import Requested
from imtok.encoding.setup import prepare
from imtok.quantizer_config import FSQConfig
from imtok.tokenizer import Tokenizer
from imtok.tokens.store import LocalStore

_IN_A_FOLDER = 1000
_STRIDE = 7919  # between neighbours of a list in another order; a prime
_SOURCES = ("classes", "flat", "shuffled", "urls", "signed", "unordered")
_LISTS = {"urls", "signed", "unordered"}
_STEPS = ("begin", "resume", "grow", "regrow")
_GROWN = {"grow", "regrow"}
_NEW_IN = 10  # one new image beside as many recorded ones


def main() -> None:
    args = parse()
    if args.row:
        torch.set_num_threads(1)
        print(json.dumps(measured(args.row[0], args.row[1], int(args.row[2]), Path(args.row[3]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for source in args.sources:
            folder = Path(scratch) / source
            rows += [row(step, source, args.images, folder) for step in args.steps]
            shutil.rmtree(folder)
    show(rows)
    for each in rows:
        print(json.dumps({"benchmark": "planning", **each, **machine(torch.device("cpu"))}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10**7)
    parser.add_argument("--sources", nargs="+", choices=_SOURCES, default=_SOURCES)
    parser.add_argument("--steps", nargs="+", choices=_STEPS, default=_STEPS, help="in this order, begin first")
    parser.add_argument("--scratch", help="folder for the token folders; the system's own by default")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)  # a process of its own
    return parser.parse_args()


def row(step: str, source: str, images: int, folder: Path) -> dict[str, Any]:
    """Measure one step in a process of its own."""
    command = [sys.executable, __file__, "--row", step, source, str(images), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{source} {step}: {result['seconds']:.1f} s, {result['peak_bytes'] / 1e6:.0f} MB", file=sys.stderr)
    return result


def show(rows: Sequence[dict[str, Any]]) -> None:
    titles = ("source", "step", "images", "seconds", "CPU s", "peak MB", "start MB", "plan MB")
    print(("{:11}{:8}" + "{:>13}" * 6).format(*titles))
    for each in rows:
        times = (f"{each[name]:.1f}" for name in ("seconds", "cpu_seconds"))
        sizes = (f"{each[name] / 1e6:.0f}" for name in ("peak_bytes", "start_bytes", "plan_bytes"))
        cells = (f"{each['images']:,}", *times, *sizes)
        print(("{:11}{:8}" + "{:>13}" * 6).format(each["source"], each["step"], *cells))


def measured(step: str, source: str, images: int, folder: Path) -> dict[str, Any]:
    """Take one step on the clock, and check what it has made."""
    STORAGES["made"] = Made()
    tokenizer = small_tokenizer()
    start_bytes = status("VmRSS")
    started, cpu_started = time.perf_counter(), time.process_time()
    address: str | AddressList = f"made://{source}/{images}/{'grown' if step in _GROWN else 'first'}"
    if source in _LISTS:
        address = AddressList("list", "", lambda: made_list(source, images, grown=step in _GROWN))
    with RemoteFiles() as remote:
        job = prepare([address], LocalStore(folder), tokenizer, options(), remote)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    peak = status("VmHWM")
    check(step, images, folder, len(job.plan))
    return {
        "step": step,
        "source": source,
        "images": images + (images // _NEW_IN if step in _GROWN else 0),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "peak_bytes": peak,
        "start_bytes": start_bytes,
        "plan_bytes": sum(path.stat().st_size for path in (folder / "plan").iterdir()),
    }


def check(step: str, images: int, folder: Path, units: int) -> None:
    """Compare the lists of inputs with the number of images, and the first with the hash in imtok.json."""
    info = json.loads((folder / "imtok.json").read_bytes())
    lists = sorted((folder / "plan").iterdir())
    digest, lines = hashlib.sha256(), []
    for number, path in enumerate(lists):
        with path.open("rb") as file:
            lines.append(0)
            while data := file.read(2**20):
                lines[-1] += data.count(b"\n")
                if not number:
                    digest.update(data)
    new = [images // _NEW_IN + 1] if step in _GROWN else []  # with the line before its entries
    assert (lines, digest.hexdigest()) == ([images, *new], info["plan"])
    size = info["unit_size"]
    assert units == -(-images // size) + (-(-(images // _NEW_IN) // size) if new else 0)


def small_tokenizer() -> Tokenizer:
    """Make an untrained tokenizer."""
    torch.manual_seed(0)
    network = NetworkConfig(fold=4, channels=(8, 16), blocks=1)
    return Tokenizer(TokenizerConfig(network=network, quantizer=FSQConfig(levels=(5, 5, 5)), size=32))


def options() -> Requested:
    """Return the options of `imtok encode` at their defaults."""
    return Requested(size=None, fit=None, device="cpu", precision=None, batch_size=None, unit_size=None)


def in_an_order(count: int, *, shuffled: bool) -> Iterator[int]:
    """Yield the numbers below `count`."""
    for number in range(count):
        yield number * _STRIDE % count if shuffled else number


def names(numbers: Iterable[int], first: int, *, grown: bool) -> Iterator[tuple[str, int]]:
    """Yield the names of images, and where they have grown those of new ones, with their numbers."""
    for number in numbers:
        if grown and (first + number) % _NEW_IN == 0:
            yield f"{first + number:08d}-new.jpg", first + number
        yield f"{first + number:08d}.jpg", first + number


def made_list(source: str, count: int, *, grown: bool) -> BinaryIO:
    """Make up a list of URLs as it is read."""

    def lines() -> Iterator[bytes]:
        for name, number in names(in_an_order(count, shuffled=source == "unordered"), 0, grown=grown):
            line = f"https://images.example.org/sets/{number // _IN_A_FOLDER:05d}/a/{name}"
            yield f"{line}{signature(number) if source == 'signed' else ''}\n".encode()

    return cast(BinaryIO, io.BufferedReader(Lines(lines())))


def signature(number: int) -> str:
    """Return the query of a URL that a store has signed."""
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return (
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260101%2Fus-east-1%2Fs3%2F"
        f"aws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature={digest}"
    )


class Lines(io.RawIOBase):
    """A file of lines that are made as they are read."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._rest = lines, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._rest) < len(buffer) and (some := b"".join(islice(self._lines, 1000))):
            self._rest += some
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class Made:
    """A storage of folders `made://SOURCE/COUNT/first`, and `made://SOURCE/COUNT/grown` with more images in them."""

    def kind(self, address: str) -> Kind | None:
        return "file" if address.endswith((".jpg", ".json")) else "folder"

    def list(self, folder: str) -> Iterator[Entry]:
        source, count, time_, *inner = folder.removeprefix("made://").split("/")
        if inner or source != "classes":
            first = _IN_A_FOLDER * int(inner[0][1:]) if inner else 0
            numbers = in_an_order(_IN_A_FOLDER if inner else int(count), shuffled=source == "shuffled")
            for name, number in names(numbers, first, grown=time_ == "grown"):
                yield Entry(name, f"{folder}/{name}", "file", 100_000 + number * 7919 % 100_003)
            return
        for number in range(int(count) // _IN_A_FOLDER):
            yield Entry(f"n{number:08d}", f"{folder}/n{number:08d}", "folder")

    def size(self, address: str) -> int:
        raise AssertionError(f"{address}: its listing had its size")

    def read(self, address: str, offset: int = 0, size: int = -1) -> bytes:  # noqa: ARG002
        raise FileNotFoundError(address)

    def open(self, address: str) -> BinaryIO:
        raise FileNotFoundError(address)

    def resolve(self, address: str) -> str:
        return address


def status(name: str) -> int:
    """Return a number of bytes out of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


if __name__ == "__main__":
    main()
